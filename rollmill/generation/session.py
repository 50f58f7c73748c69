"""Run the engine on a thread of its own, for synchronous callers on any number of threads."""

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
"""Seconds of work that should be queued."""
_PROMISE_S = 300.0
_POLL_S = 0.25
_STALLED_END_S = 15.0
"""Seconds that the thread of a stalled session may take to end; the stall may be in that thread."""


class PendingRollouts(Protocol):
    """The part of a run that generators need: a `Run`, or a worker's `WorkerRun`."""

    @property
    def directory(self) -> Path:
        """Return the run directory, which the paths of images are relative to."""
        ...

    @property
    def journal(self) -> Sink:
        """Return the destination of finished rollouts."""
        ...

    def pending(self, problem: Problem, limit: int | None = None) -> list[tuple[int, int]]:
        """Return (sample_id, attempt) of a problem's rollouts, or its first `limit` ones, that are still to be made."""
        ...


RunT = TypeVar("RunT", bound=PendingRollouts, default=Run)
RunT_contra = TypeVar("RunT_contra", bound=PendingRollouts, default=Run, contravariant=True)


class RolloutGenerator(Protocol[RunT_contra]):
    """Makes rollouts of one kind: single completions, an agent's trajectories."""

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Open clients, processes and threads on the engine's event loop; close them at the end of the block."""
        ...

    def work(self, run: RunT_contra, problems: list[Problem], *, limit: int | None = None) -> Iterator[Any]:
        """Yield the pending rollouts of some problems as work for the engine, each prepared only when it is taken."""
        ...

    async def __call__(self, work: Any) -> CompletedRollout:
        """Make one rollout; see `Engine`."""
        ...

    @property
    def stall_limit_s(self) -> float:
        """Return the seconds without a completed step after which the work counts as stalled."""
        ...

    @property
    def congested(self) -> int:
        """Return how many requests so far were refused because a server was at capacity; see `EndpointPool`."""
        ...


class RolloutSession(Generic[RunT]):
    """A context manager in which any number of threads make rollouts of a run.

    All threads share the same slots, so that the stragglers of one shard never leave slots idle that another shard
    could use.

    Stalled work (see `stall_watch`) raises `RunStoppedError`; half a minute later the process exits. With
    `exit_on_stall` the process exits at once, which is right for a worker that others replace.
    """

    def __init__(
        self,
        run: RunT,
        generator: RolloutGenerator[RunT],
        *,
        slots: Concurrency,
        progress: Progress,
        exit_on_stall: bool = False,
    ) -> None:
        """Create a session; the engine starts when it is entered.

        Args:
            run: The run whose rollouts are made.
            generator: Makes the rollouts.
            slots: Rollouts in flight; `auto` to search for the number with the highest throughput.
            progress: Counts journaled rollouts.
            exit_on_stall: Whether the process exits at once when its work stalls.
        """
        self.run = run
        self._slots = ConcurrencyController(most=most_at_a_time()) if slots == AUTO else slots
        self.progress = progress
        self._generator = generator
        self._stall = None if exit_on_stall else StallCheck(generator.stall_limit_s)
        self._promised = 0
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run_loop, name="rollout-session", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            result_of(self._ready)
        except Interrupted:  # `result_of` waits until opening has ended: what was opened must be closed again
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
        except BaseException as error:  # raised in the thread that waits in `__enter__`
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        engine: Engine[Any] = Engine(
            self._generator,
            self.run.journal,
            slots=self._slots,
            observe=self._observe,
            congested=lambda: self._generator.congested,
        )
        async with self._generator.opened(), engine:
            self._engine = engine
            self._ready.set_result(None)
            await self._closing.wait()

    @property
    def slots(self) -> int:
        """Return the current number of rollouts in flight."""
        return self._slots if isinstance(self._slots, int) else self._slots.limit

    @property
    def found_slots(self) -> int | None:
        """Return the best concurrency found so far; None where it is fixed."""
        return None if isinstance(self._slots, int) else self._slots.best

    def _observe(self, outcome: RolloutOutcome) -> None:
        self.progress.observe(outcome)
        self.progress.note_slots("", self.found_slots)

    def generate(
        self,
        problems: Sequence[Problem],
        *,
        limit: int | None = None,
        is_given_up: Callable[[], bool] | None = None,
    ) -> Tally:
        """Make the pending rollouts of these problems; return their tally when all are journaled.

        Raises what stopped the engine, see `Engine`, and `RunStoppedError` as soon as `is_given_up` returns True: the
        caller then leaves the session, which cancels rollouts in flight.
        """
        grace_s, interpreter_s = (CLEANUP_S, math.inf) if self._stall else (0.0, INTERPRETER_S)
        limit_s, stacks = self._generator.stall_limit_s, stacks_file(self.run.directory)
        # Start the watch before the work: work that never releases the interpreter's lock would also block the watch.
        with watch.exit_on_stall(limit_s, stacks, grace_s=grace_s, interpreter_s=interpreter_s):
            future = asyncio.run_coroutine_threadsafe(self._generate(list(problems), limit), self._loop)
            while not concurrent.futures.wait([future], _POLL_S).done:
                if is_given_up and is_given_up():
                    raise RunStoppedError("the rollouts are not needed any more")
                if self._stall:
                    self._stall.check()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RunStoppedError("the run was stopped; run the same command again to continue it") from None

    async def _generate(self, problems: list[Problem], limit: int | None) -> Tally:
        size = sum(len(self.run.pending(problem, limit)) for problem in problems)
        self._promised = 0
        work = self._generator.work(self.run, problems, limit=limit)
        return await self._engine.add(work, size)

    @property
    def stopped(self) -> bool:
        """Return whether the engine has stopped on an error, which `generate` then raises."""
        return self._engine.stopped_by is not None

    def wait_for_room(self) -> None:
        """Block until the queue is short: less than 90 s of work, at the rate of the last minute.

        90 s are enough for a slow orchestrator, whose own requests may take a minute to time out, to submit the next
        shard in time. Returns at once when the engine has stopped. The caller is expected to call `generate` next:
        further calls block until it does.
        """
        started = time.monotonic()
        while self._promised > 0 or self._engine.waiting >= self._target_queue_length():
            if self.stopped:
                return
            if self._promised > 0 and time.monotonic() - started > _PROMISE_S:
                raise RunStoppedError(
                    f"work for the engine was not submitted within {_PROMISE_S:.0f} s: see the orchestrator's log, "
                    "then run the same command again to continue"
                )
            look()
            time.sleep(0.01)
        self._promised = 1

    def _target_queue_length(self) -> float:
        return max(2 * self.slots, _AHEAD_S * self.progress.snapshot().rollouts_per_s)
