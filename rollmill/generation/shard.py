"""Shards: the parts of a run that workers make, and the scheduler that cuts them and journals their rollouts.

A shard has the rollouts that one worker makes at a time. `ShardScheduler` belongs to the process with the journal,
`WorkerRun` to a worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

from rollmill.errors import InputError, ServingError
from rollmill.generation.engine import CompletedRollout, Sink
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.tally import Tally
from rollmill.records import Problem


class ShardProblem(NamedTuple):
    """A problem with its pending rollouts."""

    problem: Problem
    pending: list[tuple[int, int]]
    """(sample_id, attempt) of each; an attempt above 0 gives the rollout another seed, for `--retry truncated`."""


class Shard(ABC):
    """Rollouts that are made together on one worker. Not a dataclass: Prefect would search one for futures."""

    @property
    @abstractmethod
    def first(self) -> int:
        """Return the index of the first problem among those of the run, for display."""

    @property
    @abstractmethod
    def last(self) -> int:
        """Return the index of the last problem; for display, exact only where the problems are consecutive."""

    @property
    @abstractmethod
    def pending(self) -> list[tuple[str, int]]:
        """Return (instance_id, sample_id) of each rollout to make."""

    @abstractmethod
    def without(self, completed: Collection[tuple[str, int]]) -> Self | None:
        """Return the shard without completed rollouts, given as (instance_id, sample_id); None if nothing is left."""

    def __len__(self) -> int:
        return len(self.pending)


class ProblemShard(Shard):
    """Problems, in their order in the run, with their pending rollouts."""

    def __init__(self, first: int, problems: Sequence[ShardProblem]) -> None:
        self._first = first
        self.problems = problems

    @property
    def first(self) -> int:
        """Return the index of the first problem among those of the run, for display."""
        return self._first

    @property
    def last(self) -> int:
        """Return the index of the last problem; for display, exact only where the problems are consecutive."""
        return self.first + len(self.problems) - 1

    @property
    def pending(self) -> list[tuple[str, int]]:
        """Return (instance_id, sample_id) of each rollout to make."""
        return [(part.problem.instance_id, sample_id) for part in self.problems for sample_id, _ in part.pending]

    def __len__(self) -> int:
        return sum(len(part.pending) for part in self.problems)

    def without(self, completed: Collection[tuple[str, int]]) -> Self | None:
        """Return the shard without completed rollouts, given as (instance_id, sample_id); None if nothing is left."""
        parts = [
            ShardProblem(
                part.problem, [pair for pair in part.pending if (part.problem.instance_id, pair[0]) not in completed]
            )
            for part in self.problems
        ]
        remaining = [part for part in parts if part.pending]
        return type(self)(self.first, remaining) if remaining else None


class ShardRollouts(NamedTuple):
    """A worker's results for a shard."""

    completed: list[CompletedRollout]
    """In the order of completion."""
    worker: str
    """Host and process number."""
    ready_s: float | None = None
    """Seconds until the model was ready; None where the worker still had it open from an earlier shard."""
    given_up: bool = False
    """Whether the worker stopped early because it is shutting down or its result is not wanted: some may be missing."""
    refused: InputError | ServingError | None = None
    """The reason why the worker cannot serve the model, or lost its server: some rollouts may be missing."""
    device: dict[str, Any] | None = None
    """The device that the worker itself computes on, such as a GPU, for the manifest; None where a server computes."""
    notes: tuple[str, ...] = ()
    """Notes on the worker for the user."""
    best_concurrency: int | None = None
    """Rollouts in flight with the highest throughput so far; None where their number is fixed."""


class WorkerRun:
    """Stands in for `Run` on a worker: has the interface that the engine uses, and keeps rollouts in memory.

    It has several shards at a time, which have no problem in common.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pending: dict[str, list[tuple[int, int]]] = {}
        self._completed: dict[str, list[CompletedRollout]] = {}

    @property
    def journal(self) -> Sink:
        """Return itself, in place of a journal: finished rollouts are appended to their shard's list."""
        return self

    def pending(self, problem: Problem, limit: int | None = None) -> list[tuple[int, int]]:
        """Return (sample_id, attempt) as `Run.pending` does; empty for a problem whose shard was released."""
        # Completed rollouts are not removed: generators ask for a problem before they make any of its rollouts.
        return self._pending.get(problem.instance_id, [])[:limit]

    def append(self, rollout: CompletedRollout) -> None:
        """Append a rollout to its shard's list; drop it if the shard was released meanwhile."""
        if rollout.instance_id in self._completed:
            self._completed[rollout.instance_id].append(rollout)

    def sync(self) -> None:
        """Do nothing: the process that has the run writes to disk."""

    def add(self, shard: ProblemShard) -> list[CompletedRollout]:
        """Add a shard; return the list to which its rollouts will be appended."""
        completed: list[CompletedRollout] = []
        # One list for all problems of the shard, in the order of completion: the engine's thread appends to it.
        for part in shard.problems:
            self._pending[part.problem.instance_id] = part.pending
            self._completed[part.problem.instance_id] = completed
        return completed

    def release(self, shard: ProblemShard) -> None:
        """Remove a shard, finished or not."""
        for part in shard.problems:
            del self._pending[part.problem.instance_id], self._completed[part.problem.instance_id]


ShardT = TypeVar("ShardT", bound=Shard)


class ShardScheduler(ABC, Generic[ShardT]):
    """Cuts the pending rollouts of a run into shards, and journals the results: each rollout exactly once."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._returned: deque[ShardT] = deque()
        self._pending: set[tuple[str, int]] = set()
        """(instance_id, sample_id) of the rollouts that were cut into shards and are not journaled yet."""
        self.left = progress.left
        """Number of rollouts that no worker has."""

    @abstractmethod
    def cut_new(self, size: int) -> ShardT | None:
        """Cut a shard of about `size` rollouts that were in none yet, without recording it; None at the end."""

    def cut_canary(self, problems: Iterable[Problem], rollouts_per_problem: int) -> ShardT | None:
        """Cut and record a shard of a few rollouts, which are made first to find a broken set-up early.

        None where all of them are journaled. Only jobs with `tries_canary` need it.
        """
        raise NotImplementedError

    def cut(self, size: int) -> ShardT | None:
        """Return the next shard of about `size` rollouts; None when nothing is left. Returned work goes first."""
        return self.next_returned() or self._mark_sent(self.cut_new(size))

    def next_returned(self) -> ShardT | None:
        """Return the next shard of rollouts that a worker did not make; None when there is none."""
        while self._returned:
            shard = self._returned.popleft()
            self.left -= len(shard)
            # Some may have been journaled since: a worker that was considered lost may answer after all.
            if rest := self._without_journaled(shard):
                return rest
        return None

    def _mark_sent(self, shard: ShardT | None) -> ShardT | None:
        """Record a new shard as sent to a worker."""
        if shard is not None:
            self._pending.update(shard.pending)
            self.left -= len(shard)
        return shard

    def _without_journaled(self, shard: ShardT) -> ShardT | None:
        return shard.without({key for key in shard.pending if key not in self._pending})

    def journal_results(self, shard: ShardT, rollouts: ShardRollouts) -> Tally:
        """Journal the completed rollouts of a shard that are not journaled yet; queue the missing ones again."""
        tally = Tally()
        self._progress.note_slots(rollouts.worker, rollouts.best_concurrency)
        if rollouts.device is not None:
            self._run.note_device(rollouts.device, rollouts.worker)
        for rollout in rollouts.completed:
            # A rollout leaves `_pending` when it is journaled and never enters it again: so it is journaled once, even
            # if a shard comes back twice, or its rest is made by another worker at the same time.
            key = rollout.instance_id, rollout.sample_id
            if key not in self._pending:
                continue
            self._pending.remove(key)
            self._run.journal.append(rollout)
            self._progress.observe(rollout.outcome)
            tally.add(rollout.outcome)
        self._run.journal.sync()
        # A worker that was stopped, or that refused, did not make all: the rest goes to the next worker first.
        rest = self._without_journaled(shard)
        # Of a shard that comes back twice the rest is queued already.
        if rest := rest and rest.without({key for queued in self._returned for key in queued.pending}):
            self._returned.append(rest)
            self.left += len(rest)
        return tally


class ProblemScheduler(ShardScheduler[ProblemShard]):
    """Cuts a run into shards of consecutive problems, never splitting a problem."""

    def __init__(self, run: Run, progress: Progress) -> None:
        super().__init__(run, progress)
        self._problems = self._pending_problems(run.problems())

    def _pending_problems(self, problems: Iterable[Problem]) -> Iterator[tuple[int, ShardProblem]]:
        """Yield each problem that has rollouts in no shard yet, with its index in the run."""
        for number, problem in enumerate(problems):
            pairs = self._run.pending(problem)
            # A worker may be making the canary's rollouts of this problem.
            if pending := [pair for pair in pairs if (problem.instance_id, pair[0]) not in self._pending]:
                yield number, ShardProblem(problem, pending)

    def cut_new(self, size: int) -> ProblemShard | None:
        """Cut about `size` rollouts, never splitting a problem; `cut` records the shard as sent."""
        first, problems, count = 0, list[ShardProblem](), 0
        # Whole problems, so that a prompt is rendered once, and found in the server's prefix cache by its rollouts.
        while count < size and (numbered := next(self._problems, None)):
            number, problem = numbered
            if not problems:
                first = number
            problems.append(problem)
            count += len(problem.pending)
        return ProblemShard(first, problems) if problems else None

    def cut_canary(self, problems: Iterable[Problem], rollouts_per_problem: int) -> ProblemShard | None:
        """Cut and record a shard of the first few rollouts of some problems; None where all are journaled."""
        parts = [ShardProblem(problem, self._run.pending(problem, rollouts_per_problem)) for problem in problems]
        pending = [part for part in parts if part.pending]
        # The canary's problems are spread over the run: no index describes them, and 0 says "the first shard".
        return self._mark_sent(ProblemShard(0, pending) if pending else None)
