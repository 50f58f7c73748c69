"""The engine: a fixed number of slots that are never idle while there is work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from rollmill.errors import RunStoppedError
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.terminal.stall_watch import note_progress

WorkT = TypeVar("WorkT")

_SYNC_EVERY_S = 1.0
_FEWEST_FAILURES_TO_STOP = 64


class Sink(Protocol):
    """Takes rollouts as they are made: a `Journal`, or what brings them to one."""

    def append(self, instance_id: str, sample_id: int, line: bytes, outcome: RolloutOutcome) -> None:
        """One rollout; see `Journal.append`."""
        ...

    def sync(self) -> None:
        """Brings to disk what was appended; called once a second, from another thread."""
        ...


class CompletedRollout(NamedTuple):
    """One rollout, made and ready for the journal."""

    instance_id: str
    sample_id: int
    line: bytes
    """The journal's line, newline included."""
    outcome: RolloutOutcome
    failure: str | None = None
    """What the rollout failed of, in words."""


@dataclass(eq=False)
class Batch(Generic[WorkT]):
    """Work that was handed in together, and the future that tells when all of it is journaled."""

    work: Iterator[WorkT]
    left: int
    """Pieces that are still to be taken, as far as the caller knew their number."""
    done: asyncio.Future[Tally]
    tally: Tally = field(default_factory=Tally)
    outstanding: int = 0
    exhausted: bool = False


class Engine(Generic[WorkT]):
    """Makes rollouts, `slots` at a time, and journals each as soon as it is there.

    Batches are taken in order and without a barrier: a free slot takes the next piece of work, whichever batch it
    belongs to. Each piece is taken from its iterator only when a slot is free, so that work may be made lazily.

    `attempt` makes one rollout and does not raise for what goes wrong with it: what it does raise stops the engine, as
    does a journal that cannot be written, and as do `max(64, 2 * slots)` rollouts in a row without a completion.
    """

    def __init__(
        self,
        attempt: Callable[[WorkT], Awaitable[CompletedRollout]],
        journal: Sink,
        *,
        slots: int,
        observe: Callable[[RolloutOutcome], None] = lambda _: None,
    ) -> None:
        self._attempt = attempt
        self._journal = journal
        self._slots = slots
        self._observe = observe
        self._batches: deque[Batch[WorkT]] = deque()
        self._open: set[Batch[WorkT]] = set()
        self._failures_in_a_row = 0
        self.waiting = 0
        """Pieces of work that no slot has taken yet."""
        self.stopped_by: Exception | None = None
        """What ended the engine before its time."""

    async def __aenter__(self) -> Self:
        self._arrived = asyncio.Event()
        self._slot_tasks = [asyncio.create_task(self._slot()) for _ in range(self._slots)]
        self._sync_task = asyncio.create_task(self._sync())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_tasks()
        for batch in self._open:
            batch.done.cancel()

    async def _end_tasks(self) -> None:
        tasks = [task for task in (*self._slot_tasks, self._sync_task) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def add(self, work: Iterator[WorkT], size: int) -> asyncio.Future[Tally]:
        """Queues `size` pieces of work; the future resolves to their tally when all are journaled.

        It raises `RunStoppedError` or what else stopped the engine.
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
        while self._batches:
            batch = self._batches[0]
            for work in batch.work:
                batch.outstanding += 1
                batch.left -= 1
                self.waiting -= 1
                return batch, work
            self.waiting -= batch.left
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
            while True:
                taken = self._take()
                if taken is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                batch, work = taken
                made = await self._attempt(work)
                self._journal.append(made.instance_id, made.sample_id, made.line, made.outcome)
                batch.tally.add(made.outcome)
                batch.outstanding -= 1
                self._observe(made.outcome)
                note_progress()
                self._note_failures(made)
                self._settle(batch)
        except Exception as error:
            await self._stop(error)

    def _note_failures(self, made: CompletedRollout) -> None:
        got_nothing = made.outcome.failed and not made.outcome.completed
        self._failures_in_a_row = self._failures_in_a_row + 1 if got_nothing else 0
        if self._failures_in_a_row >= max(_FEWEST_FAILURES_TO_STOP, 2 * self._slots):
            raise RunStoppedError(
                f"the last {self._failures_in_a_row} rollouts all failed, the latest with {made.outcome.error_type}: "
                f"{made.failure}; mend that, then run the same command with --retry failed"
            )

    async def _stop(self, error: Exception) -> None:
        self.stopped_by = self.stopped_by or error
        stopping, self._open = self._open, set()
        self._batches.clear()
        for batch in stopping:
            if not batch.done.done():
                batch.done.set_exception(error)
                batch.done.exception()  # a batch that nobody waits for any more is no news
        await self._end_tasks()

    async def _sync(self) -> None:
        try:
            while True:
                await asyncio.sleep(_SYNC_EVERY_S)
                await asyncio.to_thread(self._journal.sync)
        except Exception as error:
            await self._stop(error)
