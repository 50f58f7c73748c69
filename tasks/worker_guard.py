"""Keeps Dask workers out of a deadlock of CPython. Imports Dask: import this module late."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distributed.diagnostics.plugin import WorkerPlugin

if TYPE_CHECKING:
    from distributed import Client, Worker

_log = logging.getLogger(__name__)

PROFILER = ("profile", "profile-cycle")
"""A worker's periodic calls that look at the stacks of its threads."""


class DeadlockGuard(WorkerPlugin):
    """Turn off, in a worker, what can stop its process for good.

    `sys._current_frames()` may collect garbage while it holds the interpreter's lock on all threads; where a callback
    of the collector lets another thread run that is just starting, both wait for ever (CPython gh-106883; in 3.11.7,
    among others). Dask's profiler calls that function a hundred times a second, and its diagnosis of the collector
    installs such a callback, so both are off. Nothing else that runs in a worker calls that function.
    """

    name = "rollmill-deadlock-guard"

    def setup(self, worker: Worker) -> None:
        """Turn both off in one worker; Dask calls this on those of today and on those that join later."""
        from distributed import profile
        from distributed.gc import disable_gc_diagnosis

        for name in PROFILER:
            if call := worker.periodic_callbacks.pop(name, None):
                call.stop()
        # The event loop's own profiler is a thread that nothing can stop from outside, except that it ends by itself
        # when it does not find its event loop's thread.
        profile.sys = _NoThreads  # type: ignore[assignment,attr-defined]
        disable_gc_diagnosis(force=True)


class _NoThreads:
    """Stands in for `sys` in Dask's profiler."""

    @staticmethod
    def _current_frames() -> dict[int, object]:
        return {}


def guard_workers(client: Client) -> None:
    """Guard all workers of a client's cluster, and check it. One that cannot be guarded is named in the log.

    Such a worker lacks this project, or has another version of it, and the first task that it gets says so.
    """
    from distributed.gc import disable_gc_diagnosis

    try:
        client.register_plugin(DeadlockGuard())
    except Exception as error:  # what unpickling raises on a worker of another version is anybody's
        _log.debug("the guard was not registered everywhere: %s", error)
    disable_gc_diagnosis(force=True)  # this process may have the scheduler, which turns it on, too
    answers = client.run(is_guarded, on_error="return")
    if unguarded := sorted(address for address, answer in answers.items() if answer is not True):
        _log.warning(
            "Dask's profiler could not be turned off on %s, where it may stop a worker for good: start workers with "
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
            ", ".join(unguarded),
        )


def is_guarded(dask_worker: Worker) -> bool:
    """Whether neither the profiler nor the collector's diagnosis runs in a worker."""
    from distributed import gc

    return not gc._gc_diagnosis.enabled and not set(PROFILER) & set(dask_worker.periodic_callbacks)
