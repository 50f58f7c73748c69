"""Shards: what a worker makes of a run that another process has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rollmill.errors import InputError, ServingError
from rollmill.generation.engine import CompletedRollout, Sink
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.records import Problem


class ShardProblem(NamedTuple):
    """A problem, and which of its rollouts are to be made."""

    problem: Problem
    wanted: list[tuple[int, int]]
    """(sample_id, attempt)."""


class Shard:
    """Rollouts that are made together, on one worker."""

    def __init__(self, first: int, problems: Sequence[ShardProblem]) -> None:
        self.first = first
        """Number of the first problem."""
        self.problems = problems

    def __len__(self) -> int:
        return sum(len(one.wanted) for one in self.problems)

    @property
    def last(self) -> int:
        """Number of the last problem, where none between is left out."""
        return self.first + len(self.problems) - 1

    def without(self, made: Iterable[CompletedRollout]) -> Shard | None:
        """What is left of it; None for nothing."""
        there = {(one.instance_id, one.sample_id) for one in made}
        left = [
            ShardProblem(one.problem, [pair for pair in one.wanted if (one.problem.instance_id, pair[0]) not in there])
            for one in self.problems
        ]
        problems = [one for one in left if one.wanted]
        return Shard(self.first, problems) if problems else None


class ShardRollouts(NamedTuple):
    """What a shard gave."""

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


class ShardRun:
    """What a worker has of a run: what is wanted of some problems, and what came of it.

    Shards that it holds at the same time have no problem in common.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._wanted: dict[str, list[tuple[int, int]]] = {}
        self._made: dict[str, list[CompletedRollout]] = {}

    @property
    def journal(self) -> Sink:
        """Itself: what is made goes to its shard."""
        return self

    def wanted(self, problem: Problem, first: int | None = None) -> list[tuple[int, int]]:
        """As `Run.wanted`; nothing of a problem that is not held any more."""
        return self._wanted.get(problem.instance_id, [])[:first]

    def append(self, instance_id: str, sample_id: int, line: bytes, outcome: RolloutOutcome) -> None:
        """One rollout of a shard that is held; one of another is nobody's any more."""
        if instance_id in self._made:
            self._made[instance_id].append(CompletedRollout(instance_id, sample_id, line, outcome))

    def sync(self) -> None:
        """Nothing: the run's own process brings to disk what it gets."""

    def hold(self, shard: Shard) -> list[CompletedRollout]:
        """Takes a shard; to the list its rollouts come."""
        made: list[CompletedRollout] = []
        for one in shard.problems:
            self._wanted[one.problem.instance_id] = one.wanted
            self._made[one.problem.instance_id] = made
        return made

    def release(self, shard: Shard) -> None:
        """The shard is over, one way or the other."""
        for one in shard.problems:
            del self._wanted[one.problem.instance_id], self._made[one.problem.instance_id]


class ShardScheduler:
    """Cuts what a run still wants into shards, and journals what comes back: every rollout once."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._problems = self._numbered(run.problems())
        self._back: deque[Shard] = deque()
        self._out: set[tuple[str, int]] = set()
        self.left = progress.left
        """Rollouts that are in no shard yet."""

    def _numbered(self, problems: Iterable[Problem]) -> Iterator[tuple[int, ShardProblem]]:
        for number, problem in enumerate(problems):
            pairs = self._run.wanted(problem)
            if wanted := [pair for pair in pairs if (problem.instance_id, pair[0]) not in self._out]:
                yield number, ShardProblem(problem, wanted)

    def cut(self, size: int) -> Shard | None:
        """So many rollouts, rounded up to whole problems; first what came back unmade. None when nothing is left."""
        if again := self.cut_again():
            return again
        first, problems, count = 0, list[ShardProblem](), 0
        while count < size and (numbered := next(self._problems, None)):
            number, problem = numbered
            first = first if problems else number
            problems.append(problem)
            count += len(problem.wanted)
        return self._sent(Shard(first, problems)) if problems else None

    def cut_again(self) -> Shard | None:
        """What came back unmade; None for nothing."""
        return self._sent(self._back.popleft()) if self._back else None

    def cut_first(self, problems: Iterable[Problem], rollouts: int) -> Shard | None:
        """The first few rollouts of some problems: a canary."""
        chosen = [ShardProblem(problem, self._run.wanted(problem, rollouts)) for problem in problems]
        wanted = [one for one in chosen if one.wanted]
        return self._sent(Shard(0, wanted)) if wanted else None

    def _sent(self, shard: Shard) -> Shard:
        self._out.update((one.problem.instance_id, sample_id) for one in shard.problems for sample_id, _ in one.wanted)
        self.left -= len(shard)
        return shard

    def take(self, shard: Shard, given: ShardRollouts) -> Tally:
        """Journals what was made, less what is there; what was not made is cut again."""
        tally = Tally()
        for one in given.made:
            key = one.instance_id, one.sample_id
            if key not in self._out:
                continue
            self._out.remove(key)
            self._run.journal.append(one.instance_id, one.sample_id, one.line, one.outcome)
            self._progress.observe(one.outcome)
            tally.add(one.outcome)
        self._run.journal.sync()
        if rest := shard.without(given.made):
            self._back.append(rest)
            self.left += len(rest)
        return tally
