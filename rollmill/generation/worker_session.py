"""A session that stays in this process for one shard after another, with the server that it asks."""

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
from rollmill.generation.shard import ProblemShard, ShardRollouts, ShardRun
from rollmill.generation.tally import Tally

IDLE_S = 60.0
"""After so long without a shard the session ends, and with it a server of our own: others may want the accelerator."""
_LOOK_S = 0.25
_CANNOT = InputError, ServingError
"""What says that this host cannot serve the model, while others may."""

IsGivenUp = Callable[[], bool]


class WorkerSpec(Protocol):
    """What a worker needs to open a session; shards with equal specs share one."""

    @property
    def directory(self) -> Path:
        """Return the run's directory."""
        ...


Opening = Callable[[ShardRun, IsGivenUp], AbstractContextManager[RolloutSession[ShardRun]]]
"""Opens a session for a part of a run. It may take minutes; given up, it raises `RunStoppedError` within seconds.

Raises `ServingError`, or `InputError`, where the model cannot be asked here.
"""


class _Kept(NamedTuple):
    spec: WorkerSpec
    part: ShardRun
    session: RolloutSession[ShardRun]
    stack: ExitStack


class _Refusal(NamedTuple):
    caller: str
    error: InputError | ServingError


class SessionCache:
    """At most one session at a time, for any number of threads with shards of the same spec.

    A shard of another spec waits for those that are being made, and its session then takes the place of theirs.
    """

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._kept: _Kept | None = None
        self._refusal: _Refusal | None = None
        self._users = 0
        self._uses = 0

    def make(
        self,
        spec: WorkerSpec,
        opening: Opening,
        shard: ProblemShard,
        *,
        caller: str = "",
        is_given_up: IsGivenUp | None = None,
    ) -> ShardRollouts:
        """Make a shard. A failure on the way ends the session, and so does being given up where nobody else uses it.

        Where the model cannot be asked here, the error is part of the result, beside the rollouts made before, and the
        same caller's further shards get it at once. Raises what else `opening` and `RolloutSession.generate` do.

        Args:
            spec: What a session is opened for.
            opening: Opens a session.
            shard: What is to be made.
            caller: Names the run's process, to which a refusal is repeated.
            is_given_up: Says when nobody waits for the shard any more.
        """
        gone = is_given_up or (lambda: False)
        completed: list[CompletedRollout] = []
        ready_s: float | None = None
        try:
            with self._used(spec, opening, gone, caller) as (kept, ready_s):
                completed = kept.part.take(shard)
                try:
                    kept.session.generate([piece.problem for piece in shard.problems], is_given_up=is_given_up)
                finally:
                    kept.part.release(shard)
        except _CANNOT as error:
            return ShardRollouts(list(completed), worker(), ready_s, refused=error)
        except RunStoppedError:
            if not gone():
                raise
            return ShardRollouts(list(completed), worker(), ready_s, given_up=True)
        return ShardRollouts(completed, worker(), ready_s, slots=kept.session.found_slots)

    @contextmanager
    def _used(
        self, spec: WorkerSpec, opening: Opening, gone: IsGivenUp, caller: str
    ) -> Iterator[tuple[_Kept, float | None]]:
        with self._changed:
            while self._users and self._kept and self._kept.spec != spec:
                if gone():
                    raise RunStoppedError("the shard is not wanted any more")
                self._changed.wait(_LOOK_S)
            if self._refusal and self._refusal.caller == caller:
                raise self._refusal.error
            try:
                kept, ready_s = self._open(spec, opening, gone)
            except _CANNOT as error:
                self._refusal = _Refusal(caller, error)
                raise
            self._users += 1
            self._uses += 1
        try:
            yield kept, ready_s
        except BaseException as error:
            with self._changed:
                if isinstance(error, _CANNOT):
                    self._refusal = _Refusal(caller, error)
                if self._kept is kept and (self._users == 1 or not gone()):
                    self._end()
            raise
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()
                if not self._users:
                    self._end_later()

    def _open(self, spec: WorkerSpec, opening: Opening, gone: IsGivenUp) -> tuple[_Kept, float | None]:
        if self._kept is not None and self._kept.spec == spec:
            return self._kept, None
        self._end()
        begun = time.monotonic()
        part = ShardRun(spec.directory)
        with ExitStack() as stack:
            session = stack.enter_context(opening(part, gone))
            self._kept = _Kept(spec, part, session, stack.pop_all())
        return self._kept, time.monotonic() - begun

    def _end(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.stack.close()

    def _end_later(self) -> None:
        timer = threading.Timer(self._idle_s, self.end, [self._uses])
        timer.daemon = True
        timer.start()

    def end(self, uses: int | None = None) -> None:
        """End the session, where no shard is being made; with a number only where none was made since that many."""
        with self._changed:
            if not self._users and uses in (None, self._uses):
                self._end()


_cache = SessionCache()


def run_shard(
    spec: WorkerSpec, opening: Opening, shard: ProblemShard, *, caller: str = "", is_given_up: IsGivenUp | None = None
) -> ShardRollouts:
    """Make a shard with this process's own cache; see `SessionCache.make`.

    Args:
        spec: What a session is opened for.
        opening: Opens a session.
        shard: What is to be made.
        caller: Names the run's process, to which a refusal is repeated.
        is_given_up: Says when nobody waits for the shard any more.
    """
    return _cache.make(spec, opening, shard, caller=caller, is_given_up=is_given_up)


def end_kept() -> None:
    """End the session that this process keeps, unless a shard is being made."""
    _cache.end()


@contextmanager
def part_session(
    part: ShardRun, maker: RolloutGenerator[ShardRun], *, slots: Concurrency, is_given_up: IsGivenUp
) -> Iterator[RolloutSession[ShardRun]]:
    """Open a session for a part of a run. Raises `RunStoppedError` where it is not wanted any more.

    Args:
        part: What takes shards, and collects their rollouts.
        maker: Makes the rollouts.
        slots: Rollouts in flight at most, or `auto`.
        is_given_up: Says when nobody waits for the session any more.
    """
    if is_given_up():
        raise RunStoppedError("the shard is not wanted any more")
    progress = Progress(total=0, left=0, before=Tally())
    with RolloutSession(part, maker, slots=slots, progress=progress, exit_on_stall=True) as session:
        yield session


def log_of_worker(log: Path) -> Path:
    """Return where this process writes a log of a run: a folder may be shared by many."""
    return log.absolute().with_name(f"{log.stem}.{worker().replace(':', '-')}{log.suffix}")


def worker() -> str:
    """Return host and number of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
