"""Results: `reject_sampling_results.json`, written as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from rollmill.files.atomic import atomic_write
from rollmill.files.rows import dump_line
from rollmill.jobs.rejection_sampling.statistics import Statistics, make_statistics
from rollmill.jobs.rejection_sampling.summary import summarise
from rollmill.jobs.rejection_sampling.tally import ProblemTally
from rollmill.records import Problem, Rollout
from rollmill.reports.attempts import LogprobReader
from rollmill.statistics.failures import FailureWords
from rollmill.statistics.summary import Numbers

Group = tuple[Problem, list[Rollout | None]]
"""A problem and its rollouts: sample i at index i, None where it is missing."""


class Results(NamedTuple):
    """Statistics of the results file, and arrays for plots."""

    statistics: Statistics
    least_errors: Numbers
    """Least error of each problem that has one, in the order of problems."""
    errors: Numbers
    """Error of each rollout that has one."""


def write_results(
    path: Path,
    groups: Iterable[Group],
    *,
    metadata: dict[str, Any],
    problems: int,
    num_rollout: int,
    accept_error: float | None,
    numeric: bool,
    failed_words: Sequence[FailureWords] = (),
    logprobs: LogprobReader | None = None,
) -> Results:
    """Write `{"metadata", "results", "summary"}` atomically, with one row per problem in the order of `groups`.

    Memory grows by a few numbers per rollout, not by its text. Raises `CoverageError`, and writes nothing, where the
    groups are not `problems` x `num_rollout` rollouts.

    Args:
        path: The file.
        groups: Every problem with its rollouts.
        metadata: `metadata` of the file.
        problems: Number of problems of the run.
        num_rollout: Rollouts per problem.
        accept_error: The greatest error that counts as success; None where the verifier decides.
        numeric: Whether errors are distances between numbers: ground truths are then written as numbers, and there is a
            baseline of guessing.
        failed_words: Messages of the failed rollouts, most frequent first.
        logprobs: Reads recorded log-probabilities; None for none.
    """
    tally = ProblemTally(num_rollout)
    with atomic_write(path) as file:
        file.write(b'{"metadata": ' + _dump(metadata) + b',\n"results": [')
        for index, (problem, rollouts) in enumerate(groups):
            summary = summarise(index, problem, rollouts, numeric=numeric, logprobs=logprobs)
            tally.add(summary)
            file.write((b",\n" if index else b"\n") + _dump(summary.to_json()))
        statistics = make_statistics(
            tally,
            expected=problems * num_rollout,
            num_rollout=num_rollout,
            accept_error=accept_error,
            failed_words=failed_words,
        )
        _write_end(file, statistics)
    return Results(statistics, tally.least_errors(), tally.errors())


def _write_end(file: BinaryIO, statistics: Statistics) -> None:
    file.write(b'\n],\n"summary": ' + orjson.dumps(statistics.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    file.write(b"}\n")


def _dump(value: object) -> bytes:
    return dump_line(value).rstrip(b"\n")
