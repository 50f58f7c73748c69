"""Shards: the rows that one worker draws for at a time, cut by row number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pydantic import BaseModel, ConfigDict

from rollmill.generation.run import PROBLEMS, Run
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


class RowRange(BaseModel):
    """Consecutive rows, from one whose number is a multiple of the shard's size to the last that is wanted."""

    model_config = ConfigDict(frozen=True)

    rows: list[ShardRow]

    @property
    def first(self) -> int:
        """Number of the first row."""
        return row_number(self.rows[0].instance_id)

    @property
    def last(self) -> int:
        """Number of the last row that is wanted."""
        return max(row_number(row.instance_id) for row in self.rows if row.wanted)


class Extent:
    """The rows of a call: from `start_idx` on, so many."""

    def __init__(self, parameters: OptimalSampling) -> None:
        self._first = parameters.start_idx
        self._end = None if parameters.num_samples is None else self._first + parameters.num_samples

    def __contains__(self, problem: Problem) -> bool:
        number = row_number(problem.instance_id)
        return number >= self._first and (self._end is None or number < self._end)


def shards(run: Run, parameters: OptimalSampling) -> Iterator[RowRange]:
    """What is still to be drawn, in the order of rows.

    Which samples are in a batch together decides the last bits of their numbers. So a shard begins where it would in
    any other call, and holds all the rows that may be in flight beside those that are wanted: their answers are the
    same, to the byte, however often the run was interrupted and in whatever parts it was made.

    Raises `InputError` where the hint names what a row does not have.
    """
    hint = Hint.from_flag(parameters.hint) if parameters.hint else None
    column = response_column(parameters, run.directory / PROBLEMS)
    extent = Extent(parameters)
    for _, group in groupby(run.problems(), lambda one: row_number(one.instance_id) // parameters.shard_size):
        problems = list(group)
        wanted = [problem in extent and bool(run.wanted(problem)) for problem in problems]
        if any(wanted):
            yield RowRange(rows=[
                ShardRow(
                    instance_id=problem.instance_id,
                    messages=build_messages(problem, Prompting()),
                    messages_t=hint.messages(problem, response_of(problem, column)) if hint else None,
                    wanted=is_wanted,
                )
                for problem, is_wanted in zip(problems, wanted, strict=True)
            ])  # fmt: skip
