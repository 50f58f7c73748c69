"""Shards: what a worker makes of a run that another process has."""

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
    """A problem, and which of its rollouts are to be made."""

    problem: Problem
    wanted: list[tuple[int, int]]
    """(sample_id, attempt)."""


class Shard(ABC):
    """Rollouts that are made together, on one worker. No dataclass: Prefect would look through one for futures."""

    @property
    @abstractmethod
    def first(self) -> int:
        """Return the number of the first problem."""

    @property
    @abstractmethod
    def last(self) -> int:
        """Return the number of the last problem, where none between is left out."""

    @property
    @abstractmethod
    def wanted(self) -> list[tuple[str, int]]:
        """Return (instance_id, sample_id) of the rollouts to make."""

    @abstractmethod
    def without(self, completed: Collection[tuple[str, int]]) -> Self | None:
        """Return what remains when some of the rollouts are made; None for nothing."""

    def __len__(self) -> int:
        return len(self.wanted)


class ProblemShard(Shard):
    """Consecutive problems, and those of their rollouts that are to be made."""

    def __init__(self, first: int, problems: Sequence[ShardProblem]) -> None:
        self._first = first
        self.problems = problems

    @property
    def first(self) -> int:
        """Return the number of the first problem."""
        return self._first

    @property
    def last(self) -> int:
        """Return the number of the last problem, where none between is left out."""
        return self.first + len(self.problems) - 1

    @property
    def wanted(self) -> list[tuple[str, int]]:
        """Return (instance_id, sample_id) of the rollouts to make."""
        return [(piece.problem.instance_id, sample_id) for piece in self.problems for sample_id, _ in piece.wanted]

    def __len__(self) -> int:
        return sum(len(piece.wanted) for piece in self.problems)

    def without(self, completed: Collection[tuple[str, int]]) -> Self | None:
        """Return what remains when some of the rollouts are made; None for nothing."""
        pieces = [
            ShardProblem(
                piece.problem, [pair for pair in piece.wanted if (piece.problem.instance_id, pair[0]) not in completed]
            )
            for piece in self.problems
        ]
        remaining = [piece for piece in pieces if piece.wanted]
        return type(self)(self.first, remaining) if remaining else None


class ShardRollouts(NamedTuple):
    """What a worker made of a shard."""

    made: list[CompletedRollout]
    """In the order of completion."""
    worker: str
    """Host and process."""
    ready_s: float | None = None
    """Seconds until the model could be asked; None where it could be before."""
    given_up: bool = False
    """The worker was to end: not all of the shard is made."""
    refused: InputError | ServingError | None = None
    """The worker cannot serve the model, or its server is gone: not all of the shard is made."""
    device: dict[str, Any] | None = None
    """What the worker computes on, for the manifest; see `describe_use`. None where a server computes."""
    notes: tuple[str, ...] = ()
    """What a user should know of the worker."""
    slots: int | None = None
    """How many rollouts at a time the worker has found to be best; None where the number was given."""


class ShardRun:
    """What a worker has of a run: what is wanted of some problems, and what came of it.

    Shards that it holds at the same time have no problem in common.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._wanted: dict[str, list[tuple[int, int]]] = {}
        self._completed: dict[str, list[CompletedRollout]] = {}

    @property
    def journal(self) -> Sink:
        """Return itself: finished rollouts go to the list of their shard."""
        return self

    def wanted(self, problem: Problem, first: int | None = None) -> list[tuple[int, int]]:
        """Return (sample_id, attempt) as `Run.wanted` does; nothing for a problem whose shard was released."""
        return self._wanted.get(problem.instance_id, [])[:first]

    def append(self, rollout: CompletedRollout) -> None:
        """Append a rollout to its shard's list; drop it where the shard was released meanwhile."""
        if rollout.instance_id in self._completed:
            self._completed[rollout.instance_id].append(rollout)

    def sync(self) -> None:
        """Do nothing: the run's own process brings to disk what it gets."""

    def take(self, shard: ProblemShard) -> list[CompletedRollout]:
        """Take a shard; its rollouts are added to the list that is returned."""
        completed: list[CompletedRollout] = []
        # One list for all problems of the shard, in the order of completion: the engine's thread appends to it.
        for piece in shard.problems:
            self._wanted[piece.problem.instance_id] = piece.wanted
            self._completed[piece.problem.instance_id] = completed
        return completed

    def release(self, shard: ProblemShard) -> None:
        """Forget a shard that is over, one way or the other."""
        for piece in shard.problems:
            del self._wanted[piece.problem.instance_id], self._completed[piece.problem.instance_id]


ShardT = TypeVar("ShardT", bound=Shard)


class ShardScheduler(ABC, Generic[ShardT]):
    """Cuts what a run still wants into shards, and journals what comes back: every rollout once."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._returned: deque[ShardT] = deque()
        self._pending: set[tuple[str, int]] = set()
        """The rollouts of shards that workers have."""
        self.left = progress.left
        """Rollouts that are in no shard yet."""

    @abstractmethod
    def cut_new(self, size: int) -> ShardT | None:
        """Cut about `size` rollouts that were in no shard yet; None when there are none."""

    def cut_first(self, problems: Iterable[Problem], rollouts: int) -> ShardT | None:
        """Return the first few rollouts of some problems, for a canary; None where they are made."""
        raise NotImplementedError

    def cut(self, size: int) -> ShardT | None:
        """Return the next shard of about `size` rollouts; None when nothing is left. Returned work goes first."""
        return self.cut_returned() or self.send(self.cut_new(size))

    def cut_returned(self) -> ShardT | None:
        """Return what came back unmade; None for nothing."""
        return self.send(self._returned.popleft()) if self._returned else None

    def send(self, shard: ShardT | None) -> ShardT | None:
        """Note that a worker gets a shard."""
        if shard is not None:
            self._pending.update(shard.wanted)
            self.left -= len(shard)
        return shard

    def take(self, shard: ShardT, rollouts: ShardRollouts) -> Tally:
        """Journal what was made of a shard, less what is there already; what was not made is cut again."""
        tally = Tally()
        self._progress.note_slots(rollouts.worker, rollouts.slots)
        if rollouts.device is not None:
            self._run.note_device(rollouts.device, rollouts.worker)
        for rollout in rollouts.made:
            # A shard may come back twice: a worker that was taken for lost may still answer. Each rollout counts once.
            key = rollout.instance_id, rollout.sample_id
            if key not in self._pending:
                continue
            self._pending.remove(key)
            self._run.journal.append(rollout)
            self._progress.observe(rollout.outcome)
            tally.add(rollout.outcome)
        self._run.journal.sync()
        # Not all of it, where the worker was to end, or refused: the rest is the first that is cut again.
        if rest := shard.without({(rollout.instance_id, rollout.sample_id) for rollout in rollouts.made}):
            self._returned.append(rest)
            self.left += len(rest)
        return tally


class ProblemScheduler(ShardScheduler[ProblemShard]):
    """Cuts a run into shards of whole problems, as large as they are asked for."""

    def __init__(self, run: Run, progress: Progress) -> None:
        super().__init__(run, progress)
        self._problems = self._numbered(run.problems())

    def _numbered(self, problems: Iterable[Problem]) -> Iterator[tuple[int, ShardProblem]]:
        for number, problem in enumerate(problems):
            pairs = self._run.wanted(problem)
            # A worker may have the canary's rollouts of this problem in hand.
            if wanted := [pair for pair in pairs if (problem.instance_id, pair[0]) not in self._pending]:
                yield number, ShardProblem(problem, wanted)

    def cut_new(self, size: int) -> ProblemShard | None:
        """Cut about `size` rollouts, never splitting a problem."""
        first, problems, count = 0, list[ShardProblem](), 0
        # Whole problems: a prompt is rendered, and its prefix cached by the server, once for all its rollouts.
        while count < size and (numbered := next(self._problems, None)):
            number, problem = numbered
            # `problems` is still empty for the first one, whose number is the shard's.
            first = first if problems else number
            problems.append(problem)
            count += len(problem.wanted)
        return ProblemShard(first, problems) if problems else None

    def cut_first(self, problems: Iterable[Problem], rollouts: int) -> ProblemShard | None:
        """Return the first few rollouts of some problems, for a canary; None where they are made."""
        pieces = [ShardProblem(problem, self._run.wanted(problem, rollouts)) for problem in problems]
        wanted = [piece for piece in pieces if piece.wanted]
        return self.send(ProblemShard(0, wanted) if wanted else None)
