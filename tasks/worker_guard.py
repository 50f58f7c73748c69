"""Keeps Dask workers from a deadlock in CPython. Imports Dask: import this module late."""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import cloudpickle  # type: ignore[import-untyped]
from distributed.diagnostics.plugin import WorkerPlugin

from rollmill.terminal.interruption import call_within

if TYPE_CHECKING:
    from distributed import Client, Worker

_log = logging.getLogger(__name__)

ANSWER_S = 30.0
"""Seconds for all workers to answer: Dask waits forever for one that is stopped or hangs."""
_ADVICE = "start workers with DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"
PROFILER = ("profile", "profile-cycle")
"""A worker's periodic callbacks that sample the stacks of its threads."""


class DeadlockGuard(WorkerPlugin):
    """Turns off a worker's profiler and GC diagnosis, which can deadlock its process.

    `sys._current_frames()` may collect garbage while it holds the interpreter's lock on all threads; if a callback of
    the collector then lets a thread run that is just starting, both wait forever (CPython gh-106883; in 3.11.7, among
    others). Dask's profiler calls that function a hundred times a second, and its GC diagnosis installs such a
    callback, so both are off. Nothing else that runs in a worker calls that function.
    """

    def setup(self, worker: Worker) -> None:
        """Turn both off in one worker; Dask calls this on the current workers and on those that join later."""
        from distributed import profile
        from distributed.gc import disable_gc_diagnosis

        for name in PROFILER:
            if call := worker.periodic_callbacks.pop(name, None):
                call.stop()
        # The event loop's profiler is a thread that cannot be stopped from outside, but ends by itself when it does
        # not find its event loop's thread.
        profile.sys = _NoThreads  # type: ignore[assignment,attr-defined]
        disable_gc_diagnosis(force=True)


class _NoThreads:
    """Replaces `sys` in Dask's profiler."""

    @staticmethod
    def _current_frames() -> dict[int, object]:
        return {}


@contextmanager
def guarded_workers(client: Client) -> Iterator[None]:
    """Guard all workers of a client's cluster, including those that join later, while the block runs.

    Logs a warning with the workers that cannot be guarded. The plugin is pickled by value, so workers and scheduler,
    which others may share, need nothing of this project; it is unregistered at the end.
    """
    from distributed.gc import disable_gc_diagnosis

    name = f"rollmill-deadlock-guard-{uuid.uuid4().hex[:8]}"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        try:
            call_within(ANSWER_S, partial(client.register_plugin, DeadlockGuard(), name=name))
        except Exception as error:  # unpickling on a worker of another version may raise anything
            _log.debug("the guard was not registered everywhere: %s", error)
        answers = _check_guarded(client)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    disable_gc_diagnosis(force=True)  # a scheduler in this process turns it on, too
    _warn_of_unguarded(answers)
    try:
        yield
    finally:
        with suppress(Exception):  # the scheduler may have ended
            call_within(ANSWER_S, partial(client.unregister_worker_plugin, name))


def _check_guarded(client: Client) -> dict[str, object]:
    """Return whether each worker is guarded, by address; empty if one does not answer."""
    try:
        return call_within(ANSWER_S, partial(client.run, is_guarded, on_error="return"))
    except TimeoutError as error:
        _log.warning("not every worker says whether Dask's profiler is off there (%s): %s", error, _ADVICE)
        return {}


def _warn_of_unguarded(answers: dict[str, object]) -> None:
    if unguarded := sorted(address for address, answer in answers.items() if answer is not True):
        _log.warning(
            "Dask's profiler could not be turned off on %s, where it may stop a worker for good: %s",
            ", ".join(unguarded),
            _ADVICE,
        )


def is_guarded(dask_worker: Worker) -> bool:
    """Return whether neither the profiler nor the GC diagnosis runs in a worker."""
    from distributed import gc

    return not gc._gc_diagnosis.enabled and not set(PROFILER) & set(dask_worker.periodic_callbacks)
