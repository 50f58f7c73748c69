"""The asyncio engine: a fixed or adaptive number of slots, each making one rollout after another."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar, cast

from rollmill.errors import RunStoppedError
from rollmill.generation.concurrency import ConcurrencyController, Ticket
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.inference.sampled_tokens import SampledTokens
from rollmill.terminal.stall_watch import note_progress

WorkT = TypeVar("WorkT")

_SYNC_EVERY_S = 1.0
_FEWEST_FAILURES_TO_STOP = 64


class _Exhausted:
    """Marks the end of an iterator of work, whose items may be anything, None included."""


_EXHAUSTED = _Exhausted()


class CompletedRollout(NamedTuple):
    """One finished rollout, ready for the journal."""

    instance_id: str
    sample_id: int
    line: bytes
    """The journal's line, newline included."""
    outcome: RolloutOutcome
    failure: str | None = None
    """The error message of a failed rollout."""
    tokens: tuple[SampledTokens, ...] = ()
    """Prompt and completion tokens of each answered request, in order; empty where they are not recorded."""


class Sink(Protocol):
    """Destination of finished rollouts: a `Journal`, or a worker's list that is sent to one."""

    def append(self, rollout: CompletedRollout) -> None:
        """Append one rollout; see `Journal.append`."""
        ...

    def sync(self) -> None:
        """Flush appended rollouts to disk; called once a second, from another thread."""
        ...


@dataclass(eq=False)
class Batch(Generic[WorkT]):
    """Work that was added together, and the future that resolves when all of it is journaled."""

    work: Iterator[WorkT]
    untaken: int
    """Items that no slot has taken yet; an estimate, since iterators are lazy."""
    done: asyncio.Future[Tally]
    tally: Tally = field(default_factory=Tally)
    outstanding: int = 0
    """Items that slots are working on."""
    exhausted: bool = False
    """Whether the iterator has ended."""


class Engine(Generic[WorkT]):
    """Makes rollouts, `slots` at a time, and journals each as soon as it is finished.

    Batches are processed in order and without a barrier: a free slot takes the next item, whichever batch it belongs
    to. An item is taken from its iterator only when a slot is free, so that iterators may render prompts lazily.

    `attempt` makes one rollout and returns failures of that rollout as data: an exception that it raises stops the
    engine, and so do a journal that cannot be written, and `max(64, 2 * slots)` rollouts in a row without a completion.
    """

    def __init__(
        self,
        attempt: Callable[[WorkT], Awaitable[CompletedRollout]],
        journal: Sink,
        *,
        slots: int | ConcurrencyController,
        observe: Callable[[RolloutOutcome], None] = lambda _: None,
        congested: Callable[[], int] = lambda: 0,
    ) -> None:
        """Create an engine; it starts as an asynchronous context manager.

        Args:
            attempt: Makes one rollout of an item of work.
            journal: Receives finished rollouts.
            slots: Rollouts in flight, or a controller that adapts their number.
            observe: Called with the outcome of each journaled rollout.
            congested: Returns the running total of requests that servers refused for lack of capacity.
        """
        self._attempt = attempt
        self._journal = journal
        self._controller = slots if isinstance(slots, ConcurrencyController) else None
        self._fixed_slots = 0 if isinstance(slots, ConcurrencyController) else slots
        self._observe = observe
        self._congested = congested
        self._slot_tasks: set[asyncio.Task[None]] = set()
        self._batches: deque[Batch[WorkT]] = deque()
        self._open: set[Batch[WorkT]] = set()
        self._failures_in_a_row = 0
        self.waiting = 0
        """Items that no slot has taken yet."""
        self.stopped_by: Exception | None = None
        """The exception that stopped the engine."""

    async def __aenter__(self) -> Self:
        self._arrived = asyncio.Event()
        self._fill_slots()
        self._sync_task = asyncio.create_task(self._sync())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_tasks()
        for batch in self._open:
            batch.done.cancel()

    @property
    def slots(self) -> int:
        """Return the current number of rollouts in flight."""
        return self._controller.limit if self._controller else self._fixed_slots

    def _fill_slots(self) -> None:
        """Start slot tasks up to the current number. Surplus ones end by themselves after their rollout."""
        while len(self._slot_tasks) < self.slots and self.stopped_by is None:
            self._slot_tasks.add(asyncio.create_task(self._slot()))

    async def _end_tasks(self) -> None:
        # A slot that stops the engine is one of the tasks: it must not cancel or await itself.
        tasks = [task for task in (*self._slot_tasks, self._sync_task) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def add(self, work: Iterator[WorkT], size: int) -> asyncio.Future[Tally]:
        """Queue `size` items of work; the future resolves to their tally when all are journaled.

        The future raises `RunStoppedError`, or the exception that stopped the engine.
        """
        batch = Batch(work, size, asyncio.get_running_loop().create_future())
        if self.stopped_by is not None:
            batch.done.set_exception(self.stopped_by)
            return batch.done
        self._batches.append(batch)
        self._open.add(batch)
        self.waiting += size
        self._arrived.set()
        return batch.done

    def _take(self) -> tuple[Batch[WorkT], WorkT] | None:
        """Take the next item from the first batch that has one; None where all are exhausted."""
        while self._batches:
            batch = self._batches[0]
            work = next(batch.work, _EXHAUSTED)
            if not isinstance(work, _Exhausted):
                batch.outstanding += 1
                batch.untaken -= 1
                self.waiting -= 1
                return batch, work
            # Some rollouts may have been completed since the caller counted: correct the estimate.
            self.waiting -= batch.untaken
            self._batches.popleft()
            batch.exhausted = True
            self._settle(batch)
        return None

    def _settle(self, batch: Batch[WorkT]) -> None:
        if batch.exhausted and batch.outstanding == 0:
            self._open.discard(batch)
            if not batch.done.done():
                batch.done.set_result(batch.tally)

    async def _slot(self) -> None:
        try:
            # A controller may have lowered the number: then the surplus slots end here, between two rollouts.
            while len(self._slot_tasks) <= self.slots:
                taken = self._take()
                if taken is None:
                    if self._controller:
                        self._controller.starve()
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                batch, work = taken
                ticket = self._controller.started(time.monotonic()) if self._controller else None
                rollout = await self._attempt(work)
                if ticket:
                    self._measure(ticket, rollout.outcome)
                self._journal.append(rollout)
                batch.tally.add(rollout.outcome)
                batch.outstanding -= 1
                self._observe(rollout.outcome)
                note_progress()
                self._note_failures(rollout)
                self._settle(batch)
        except Exception as error:
            await self._stop(error)
        finally:
            self._slot_tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _measure(self, ticket: Ticket, outcome: RolloutOutcome) -> None:
        """Report a finished rollout to the controller, in tokens, or in responses for a server without token counts."""
        assert self._controller
        work = float(max(outcome.completion_tokens, 1)) if outcome.completed or not outcome.failed else 0.0
        self._controller.finished(time.monotonic(), ticket, work=work, congested=self._congested())
        self._fill_slots()

    def _note_failures(self, rollout: CompletedRollout) -> None:
        # A completion that only the verifier failed on is kept, and shows that the server works.
        has_no_completion = rollout.outcome.failed and not rollout.outcome.completed
        self._failures_in_a_row = self._failures_in_a_row + 1 if has_no_completion else 0
        if self._failures_in_a_row >= max(_FEWEST_FAILURES_TO_STOP, 2 * self.slots):
            raise RunStoppedError(
                f"the last {self._failures_in_a_row} rollouts all failed, the latest with "
                f"{rollout.outcome.error_type}: {rollout.failure}; fix this, "
                "then run the same command with --retry failed"
            )

    async def _stop(self, error: Exception) -> None:
        self.stopped_by = self.stopped_by or error
        stopping, self._open = self._open, set()
        self._batches.clear()
        for batch in stopping:
            if not batch.done.done():
                batch.done.set_exception(error)
                batch.done.exception()  # mark the exception as retrieved, or asyncio logs a warning
        await self._end_tasks()

    async def _sync(self) -> None:
        try:
            while True:
                await asyncio.sleep(_SYNC_EVERY_S)
                await asyncio.to_thread(self._journal.sync)
                if self._controller:
                    self._controller.look(time.monotonic())
                    self._fill_slots()
        except Exception as error:
            await self._stop(error)
