"""Shards: the rows that one worker draws for at a time, cut by row number."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Self

from pydantic import BaseModel, ConfigDict

from rollmill.generation.progress import Progress
from rollmill.generation.run import PROBLEMS, Run
from rollmill.generation.shard import Shard, ShardScheduler
from rollmill.jobs.optimal_sampling.datasets import response_column, response_of, row_number
from rollmill.jobs.optimal_sampling.hint import Hint
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.problems import Prompting, build_messages
from rollmill.records import Message, Problem


class ShardRow(BaseModel):
    """One row of a data set, as its answer is drawn."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    messages: list[Message]
    messages_t: list[Message] | None
    """What pi_t sees; None for the same."""
    wanted: bool
    """Whether its answer is; else only its place in the batch counts."""


class RowRange(Shard):
    """Consecutive rows, from one whose number is a multiple of the shard's size to the last that is wanted."""

    def __init__(self, rows: Sequence[ShardRow]) -> None:
        self.rows = rows

    @property
    def first(self) -> int:
        """Number of the first row."""
        return row_number(self.rows[0].instance_id)

    @property
    def last(self) -> int:
        """Number of the last row that is wanted."""
        return max(row_number(row.instance_id) for row in self.rows if row.wanted)

    @property
    def wanted(self) -> list[tuple[str, int]]:
        """Return (instance_id, sample_id) of the rows whose answers are wanted."""
        return [(row.instance_id, 0) for row in self.rows if row.wanted]

    def without(self, completed: Collection[tuple[str, int]]) -> Self | None:
        """Return the same rows, of which fewer are wanted; None where none is."""
        rows = [
            row.model_copy(update={"wanted": row.wanted and (row.instance_id, 0) not in completed}) for row in self.rows
        ]
        return type(self)(rows) if any(row.wanted for row in rows) else None


class Extent:
    """The rows of a call: from `start_idx` on, `total_rollouts` of them."""

    def __init__(self, parameters: OptimalSampling) -> None:
        self._first = parameters.start_idx
        self._end = None if parameters.total_rollouts is None else self._first + parameters.total_rollouts

    def __contains__(self, problem: Problem) -> bool:
        number = row_number(problem.instance_id)
        return number >= self._first and (self._end is None or number < self._end)


class RowScheduler(ShardScheduler[RowRange]):
    """Cuts what is still to be drawn into shards, in the order of rows.

    Which samples are in a batch together decides the last bits of their numbers. So a shard begins where it would in
    any other call, and holds all the rows that may be in flight beside those that are wanted: their answers are the
    same, to the byte, however often the run was interrupted and in whatever parts it was made.
    """

    def __init__(self, run: Run, progress: Progress, parameters: OptimalSampling, hint: Hint | None) -> None:
        super().__init__(run, progress)
        self._ranges = self._cut_rows(parameters, hint)

    def cut_new(self, size: int) -> RowRange | None:
        """Return the next rows; how many is the parameters' to say, whatever `size`.

        Raises `InputError` where the hint names what a row does not have.
        """
        return next(self._ranges, None)

    def _cut_rows(self, parameters: OptimalSampling, hint: Hint | None) -> Iterator[RowRange]:
        column = response_column(parameters, self._run.directory / PROBLEMS)
        extent = Extent(parameters)

        def shard_number(problem: Problem) -> int:
            return row_number(problem.instance_id) // parameters.shard_size

        for _, group in groupby(self._run.problems(), shard_number):
            problems = list(group)
            wanted = [problem in extent and bool(self._run.wanted(problem)) for problem in problems]
            if any(wanted):
                yield RowRange([
                    ShardRow(
                        instance_id=problem.instance_id,
                        messages=build_messages(problem, Prompting()),
                        messages_t=hint.messages(problem, response_of(problem, column)) if hint else None,
                        wanted=is_wanted,
                    )
                    for problem, is_wanted in zip(problems, wanted, strict=True)
                ])  # fmt: skip
