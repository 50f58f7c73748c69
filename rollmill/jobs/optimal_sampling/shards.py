"""Shards of a q* sampling run: the rows that one worker samples at a time, cut by row number."""

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
    """One row of a data set: the prompts of its sample."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    messages: list[Message]
    messages_t: list[Message] | None
    """Prompt of pi_t; None for the same prompt."""
    is_pending: bool
    """Its sample is missing in the journal; else the row only fills its place in the batch."""


class RowRange(Shard):
    """Consecutive rows of a data set, from a multiple of the shard's size on to the last pending row."""

    def __init__(self, rows: Sequence[ShardRow]) -> None:
        self.rows = rows

    @property
    def first(self) -> int:
        """Number of the first row in the data set."""
        return row_number(self.rows[0].instance_id)

    @property
    def last(self) -> int:
        """Number of the last pending row."""
        return max(row_number(row.instance_id) for row in self.rows if row.is_pending)

    @property
    def pending(self) -> list[tuple[str, int]]:
        """(instance_id, sample_id) of the pending rows."""
        return [(row.instance_id, 0) for row in self.rows if row.is_pending]

    def without(self, completed: Collection[tuple[str, int]]) -> Self | None:
        """Return the same rows with fewer of them pending; None where none is."""
        rows = [
            row.model_copy(update={"is_pending": row.is_pending and (row.instance_id, 0) not in completed})
            for row in self.rows
        ]
        return type(self)(rows) if any(row.is_pending for row in rows) else None


class Extent:
    """The problems that a call samples: `total_rollouts` rows from `start_idx` on."""

    def __init__(self, parameters: OptimalSampling) -> None:
        self._first = parameters.start_idx
        self._end = None if parameters.total_rollouts is None else self._first + parameters.total_rollouts

    def __contains__(self, problem: Problem) -> bool:
        number = row_number(problem.instance_id)
        return number >= self._first and (self._end is None or number < self._end)


class RowScheduler(ShardScheduler[RowRange]):
    """Cuts the pending rows into shards, in the order of rows.

    The last bits of a sample's numbers depend on the samples in the same batch. So shards begin at the same rows in any
    call, and have all rows that may be in flight beside the pending ones: samples are the same, to the byte, however
    often the run was interrupted.

    Args:
        run: The run.
        progress: Its progress.
        parameters: The call's parameters.
        hint: The hint that pi_t gets; None for none.
    """

    def __init__(self, run: Run, progress: Progress, parameters: OptimalSampling, hint: Hint | None) -> None:
        super().__init__(run, progress)
        self._ranges = self._cut_rows(parameters, hint)

    def cut_new(self, size: int) -> RowRange | None:
        """Return the next `shard_size` rows; `size` is not used.

        Raises `InputError` where the hint names a column that a row does not have.
        """
        return next(self._ranges, None)

    def _cut_rows(self, parameters: OptimalSampling, hint: Hint | None) -> Iterator[RowRange]:
        column = response_column(parameters, self._run.directory / PROBLEMS)
        extent = Extent(parameters)

        def shard_number(problem: Problem) -> int:
            return row_number(problem.instance_id) // parameters.shard_size

        for _, group in groupby(self._run.problems(), shard_number):
            problems = list(group)
            pending = [problem in extent and bool(self._run.pending(problem)) for problem in problems]
            if any(pending):
                yield RowRange([
                    ShardRow(
                        instance_id=problem.instance_id,
                        messages=build_messages(problem, Prompting()),
                        messages_t=hint.messages(problem, response_of(problem, column)) if hint else None,
                        is_pending=is_pending,
                    )
                    for problem, is_pending in zip(problems, pending, strict=True)
                ])  # fmt: skip
