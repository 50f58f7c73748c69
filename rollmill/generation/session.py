"""The engine on a thread of its own, for callers that are not asynchronous, and for several of them at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self

from typing_extensions import TypeVar

from rollmill.errors import RunStoppedError
from rollmill.generation.concurrency import AUTO, Concurrency, ConcurrencyController, most_at_a_time
from rollmill.generation.engine import CompletedRollout, Engine, Sink
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.records import Problem
from rollmill.terminal.interruption import Interrupted, look, result_of
from rollmill.terminal.stall_watch import CLEANUP_S, INTERPRETER_S, StallCheck, stacks_file, watch

_AHEAD_S = 90.0
_PROMISE_S = 300.0
_LOOK_S = 0.25
_STALLED_END_S = 15.0
"""How long the thread of a session that stood still may take to end: what stands still may be in it."""


class PendingRollouts(Protocol):
    """A run as far as rollouts are made for it: a `Run`, or what a worker has of one."""

    @property
    def directory(self) -> Path:
        """Return the folder that the paths of images are relative to."""
        ...

    @property
    def journal(self) -> Sink:
        """Return what takes the finished rollouts."""
        ...

    def wanted(self, problem: Problem, first: int | None = None) -> list[tuple[int, int]]:
        """Return (sample_id, attempt) of what is still to be made of a problem, or of its `first` rollouts."""
        ...


RunT = TypeVar("RunT", bound=PendingRollouts, default=Run)
RunT_contra = TypeVar("RunT_contra", bound=PendingRollouts, default=Run, contravariant=True)


class RolloutGenerator(Protocol[RunT_contra]):
    """Makes rollouts of one kind: single completions, an agent's trajectories."""

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Hold, on the engine's event loop, what it needs: clients, processes, threads."""
        ...

    def work(self, run: RunT_contra, problems: list[Problem], *, first: int | None = None) -> Iterator[Any]:
        """Yield what a run still wants of some problems, each piece prepared only when its turn comes."""
        ...

    async def __call__(self, work: Any) -> CompletedRollout:
        """Make one rollout; see `Engine`."""
        ...

    @property
    def stall_limit_s(self) -> float:
        """Return the seconds without any completed step after which the work counts as stalled."""
        ...

    @property
    def congested(self) -> int:
        """Return the tries so far that a server had no room for; see `EndpointPool`."""
        ...


class RolloutSession(Generic[RunT]):
    """Makes a run's rollouts, for the time of a `with` block.

    Any number of threads may hand in problems; all share the same slots, so that one shard's stragglers never leave
    slots idle that another shard could use.

    Work that stands still (see `stall_watch`) ends in `RunStoppedError`, half a minute later in the process's end.
    With `exit_on_stall` the process ends at once, for a worker that others replace.
    """

    def __init__(
        self,
        run: RunT,
        maker: RolloutGenerator[RunT],
        *,
        slots: Concurrency,
        progress: Progress,
        exit_on_stall: bool = False,
    ) -> None:
        """Prepare a session.

        Args:
            run: Whose rollouts are made.
            maker: Makes them.
            slots: Rollouts at a time; `auto` for as many as give the most tokens per second.
            progress: Is told of each that is journaled.
            exit_on_stall: Whether the process ends at once where its work stands still.
        """
        self.run = run
        self._slots = ConcurrencyController(most=most_at_a_time()) if slots == AUTO else slots
        self.progress = progress
        self._maker = maker
        self._stall = None if exit_on_stall else StallCheck(maker.stall_limit_s)
        self._promised = 0
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run_loop, name="rollout-session", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            result_of(self._ready)
        except Interrupted:  # what is being opened just now is closed again
            if self._ready.exception() is None:
                self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_STALLED_END_S if self._stall and self._stall.stalled else None)

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # handed to the thread that waits for it
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        engine: Engine[Any] = Engine(
            self._maker,
            self.run.journal,
            slots=self._slots,
            observe=self._observe,
            congested=lambda: self._maker.congested,
        )
        async with self._maker.opened(), engine:
            self._engine = engine
            self._ready.set_result(None)
            await self._closing.wait()

    @property
    def slots(self) -> int:
        """Return how many rollouts are made at a time now."""
        return self._slots if isinstance(self._slots, int) else self._slots.limit

    @property
    def found_slots(self) -> int | None:
        """Return how many rollouts at a time were found to be best; None where the number was given."""
        return None if isinstance(self._slots, int) else self._slots.best

    def _observe(self, outcome: RolloutOutcome) -> None:
        self.progress.observe(outcome)
        self.progress.note_slots("", self.found_slots)

    def generate(
        self,
        problems: Sequence[Problem],
        *,
        first: int | None = None,
        is_given_up: Callable[[], bool] | None = None,
    ) -> Tally:
        """Make what the run still wants of these problems, and return when all of it is journaled.

        Raises what stopped the engine, see `Engine`, and `RunStoppedError` as soon as `is_given_up` says so: leave the
        session then, what is under way ends with it.
        """
        grace_s, interpreter_s = (CLEANUP_S, math.inf) if self._stall else (0.0, INTERPRETER_S)
        limit_s, stacks = self._maker.stall_limit_s, stacks_file(self.run.directory)
        # The watch first: work that takes the interpreter's lock for ever must not begin before there is one.
        with watch.exit_on_stall(limit_s, stacks, grace_s=grace_s, interpreter_s=interpreter_s):
            future = asyncio.run_coroutine_threadsafe(self._generate(list(problems), first), self._loop)
            while not concurrent.futures.wait([future], _LOOK_S).done:
                if is_given_up and is_given_up():
                    raise RunStoppedError("the rollouts are not wanted any more")
                if self._stall:
                    self._stall.check()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RunStoppedError("the run was stopped; the same command continues it") from None

    async def _generate(self, problems: list[Problem], first: int | None) -> Tally:
        size = sum(len(self.run.wanted(problem, first)) for problem in problems)
        self._promised = 0
        work = self._maker.work(self.run, problems, first=first)
        return await self._engine.add(work, size)

    @property
    def stopped(self) -> bool:
        """Tell whether the engine has ended before its time: handing in then raises why."""
        return self._engine.stopped_by is not None

    def wait_for_room(self) -> None:
        """Return when the slots will soon need more work: within 90 s, at the rate of the last minute.

        That is ahead enough for whoever hands in work to be held up by a slow orchestrator, whose own requests may
        take a minute to time out. Returns at once when the engine has stopped: handing in then raises why. Work that
        was promised here and is not handed in yet counts as waiting.
        """
        started = time.monotonic()
        while self._promised > 0 or self._engine.waiting >= self._enough():
            if self.stopped:
                return
            if self._promised > 0 and time.monotonic() - started > _PROMISE_S:
                raise RunStoppedError(
                    f"work for the engine was not handed in within {_PROMISE_S:.0f} s: see the orchestrator's log; "
                    "the same command continues"
                )
            look()
            time.sleep(0.01)
        self._promised = 1

    def _enough(self) -> float:
        return max(2 * self.slots, _AHEAD_S * self.progress.snapshot().rollouts_per_s)
