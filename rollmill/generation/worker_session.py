"""A worker's session cache: the session, with its servers, stays open from one shard to the next."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from rollmill.errors import InputError, RunStoppedError, ServingError
from rollmill.generation.concurrency import Concurrency
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.progress import Progress
from rollmill.generation.session import RolloutGenerator, RolloutSession
from rollmill.generation.shard import ProblemShard, ShardRollouts, WorkerRun
from rollmill.generation.tally import Tally

IDLE_S = 60.0
"""Seconds without a shard after which the session ends with its server, to free the GPU for others."""
_POLL_S = 0.25
_REFUSALS = InputError, ServingError
"""Errors that mean that this worker cannot serve the model; others may."""

IsGivenUp = Callable[[], bool]


class WorkerSpec(Protocol):
    """Everything that a worker needs to open a session; shards with equal specs share a session."""

    @property
    def directory(self) -> Path:
        """Return the run's directory."""
        ...


Opening = Callable[[WorkerRun, IsGivenUp], AbstractContextManager[RolloutSession[WorkerRun]]]
"""Opens a session for a part of a run, which may take minutes; when given up, raises `RunStoppedError` within seconds.

Raises `ServingError` or `InputError` where this worker cannot serve or reach the model.
"""


class _OpenSession(NamedTuple):
    spec: WorkerSpec
    part: WorkerRun
    session: RolloutSession[WorkerRun]
    stack: ExitStack


class _Refusal(NamedTuple):
    caller: str
    error: InputError | ServingError


class SessionCache:
    """Keeps at most one session open, for any number of threads with shards of the same spec.

    A shard of another spec waits until the shards in progress are finished; its session then replaces the open one.
    """

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._current: _OpenSession | None = None
        self._refusal: _Refusal | None = None
        self._users = 0
        """Shards in progress."""
        self._uses = 0
        """Shards so far: an idle timer ends the session only if this has not changed since."""

    def make(
        self,
        spec: WorkerSpec,
        opening: Opening,
        shard: ProblemShard,
        *,
        caller: str = "",
        is_given_up: IsGivenUp | None = None,
    ) -> ShardRollouts:
        """Make a shard. An error ends the session; being given up ends it only if no other shard is in progress.

        Where this worker cannot serve the model, the error is returned with the rollouts completed so far, and further
        shards of the same caller get it at once. Raises what else `opening` and `RolloutSession.generate` raise.

        Args:
            spec: Identifies the session.
            opening: Opens a session, if none is open for the spec.
            shard: The rollouts to make.
            caller: Identifies the process that has the run, to which a refusal is repeated.
            is_given_up: Returns True when the shard's result is not needed any more; None for never.
        """
        given_up = is_given_up or (lambda: False)
        completed: list[CompletedRollout] = []
        ready_s: float | None = None
        try:
            with self._use(spec, opening, given_up, caller) as (current, ready_s):
                completed = current.part.add(shard)
                try:
                    current.session.generate([part.problem for part in shard.problems], is_given_up=is_given_up)
                finally:
                    current.part.release(shard)
        except _REFUSALS as error:
            # Copied: the engine's thread may still append to the original.
            return ShardRollouts(list(completed), worker(), ready_s, refused=error)
        except RunStoppedError:
            if not given_up():
                raise
            return ShardRollouts(list(completed), worker(), ready_s, given_up=True)
        return ShardRollouts(completed, worker(), ready_s, best_concurrency=current.session.found_slots)

    @contextmanager
    def _use(
        self, spec: WorkerSpec, opening: Opening, given_up: IsGivenUp, caller: str
    ) -> Iterator[tuple[_OpenSession, float | None]]:
        """Yield the session for a spec, and the seconds that opening it took; count its users.

        Args:
            spec: Identifies the session.
            opening: Opens one.
            given_up: Returns True when the session is not needed any more.
            caller: Identifies the process to which a refusal is repeated.
        """
        with self._changed:
            while self._users and self._current and self._current.spec != spec:
                if given_up():
                    raise RunStoppedError("the shard is not needed any more")
                self._changed.wait(_POLL_S)
            if self._refusal and self._refusal.caller == caller:
                raise self._refusal.error
            try:
                current, ready_s = self._open(spec, opening, given_up)
            except _REFUSALS as error:
                self._refusal = _Refusal(caller, error)
                raise
            self._users += 1
            self._uses += 1
        try:
            yield current, ready_s
        except BaseException as error:
            with self._changed:
                if isinstance(error, _REFUSALS):
                    self._refusal = _Refusal(caller, error)
                # A shard that was given up leaves the session to the others; any other error ends it for all.
                if self._current is current and (self._users == 1 or not given_up()):
                    self._end()
            raise
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()
                if not self._users:
                    self._end_later()

    def _open(self, spec: WorkerSpec, opening: Opening, given_up: IsGivenUp) -> tuple[_OpenSession, float | None]:
        if self._current is not None and self._current.spec == spec:
            return self._current, None
        self._end()
        started = time.monotonic()
        part = WorkerRun(spec.directory)
        with ExitStack() as stack:
            session = stack.enter_context(opening(part, given_up))
            self._current = _OpenSession(spec, part, session, stack.pop_all())
        return self._current, time.monotonic() - started

    def _end(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.stack.close()

    def _end_later(self) -> None:
        timer = threading.Timer(self._idle_s, self.end, [self._uses])
        timer.daemon = True
        timer.start()

    def end(self, uses: int | None = None) -> None:
        """End the session unless a shard is in progress; with `uses`, only if there were no more shards since then."""
        with self._changed:
            if not self._users and uses in (None, self._uses):
                self._end()


_cache = SessionCache()


def run_shard(
    spec: WorkerSpec, opening: Opening, shard: ProblemShard, *, caller: str = "", is_given_up: IsGivenUp | None = None
) -> ShardRollouts:
    """Make a shard with this process's own cache; see `SessionCache.make`.

    Args:
        spec: Identifies the session.
        opening: Opens a session, if none is open for the spec.
        shard: The rollouts to make.
        caller: Identifies the process that has the run, to which a refusal is repeated.
        is_given_up: Returns True when the shard's result is not needed any more; None for never.
    """
    return _cache.make(spec, opening, shard, caller=caller, is_given_up=is_given_up)


def end_session_if_idle() -> None:
    """End the session in this process's cache, unless a shard is in progress."""
    _cache.end()


@contextmanager
def worker_session_of(
    part: WorkerRun, generator: RolloutGenerator[WorkerRun], *, slots: Concurrency, is_given_up: IsGivenUp
) -> Iterator[RolloutSession[WorkerRun]]:
    """Open a session for a part of a run. Raises `RunStoppedError` where it is not needed any more.

    Args:
        part: Has the pending rollouts of shards, and collects the completed ones.
        generator: Makes the rollouts.
        slots: Limit of rollouts in flight, or `auto`.
        is_given_up: Returns True when the session is not needed any more.
    """
    if is_given_up():
        raise RunStoppedError("the shard is not needed any more")
    progress = Progress(total=0, left=0, before=Tally())
    with RolloutSession(part, generator, slots=slots, progress=progress, exit_on_stall=True) as session:
        yield session


def worker_log(log: Path) -> Path:
    """Return the path of this process's own log for a run, since workers may share the folder."""
    return log.absolute().with_name(f"{log.stem}.{worker().replace(':', '-')}{log.suffix}")


def worker() -> str:
    """Return host and process number of this process, as `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"
