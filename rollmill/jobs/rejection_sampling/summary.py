"""Summarises the rollouts of one problem as a row of the results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rollmill.generation.verification import NO_TEXT_REASONS
from rollmill.jobs.rejection_sampling.coverage import CoverageError
from rollmill.jobs.rejection_sampling.ranking import closeness, rollout_error
from rollmill.records import Problem, Rollout, is_cut_off
from rollmill.reports.attempts import LogprobReader, attempts_of
from rollmill.statistics.sampling_curves import Attempt
from rollmill.statistics.summary import mean, median


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of one problem's rollouts. All but the texts is kept in memory until the statistics are computed."""

    index: int
    """Number of the problem in the run, from 0."""
    instance_id: str
    ground_truth: float | str | None
    """The problem's answer, as a number where the run's errors are distances between numbers."""
    min_error: float | None
    best_sample_id: int | None
    best_completion: str | None
    best_answer: str | None
    mean_error: float | None
    median_error: float | None
    errors: list[float | None]
    """Error of each rollout, in the order of samples; None where it has none."""
    counts: dict[str, int]
    accepted: int
    truncated: int
    generated: int
    """Number of rollouts with a completion."""
    failed_kinds: Counter[str]
    """Failed rollouts by the type of their error."""
    no_text: Counter[str] = field(default_factory=Counter)
    """Rollouts without content, by reason: unparseable."""
    best_reasoning_content: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    """The judged rollouts, for curves over k."""

    @property
    def judged(self) -> int:
        """Number of judged rollouts: ok and unparseable."""
        return self.counts["ok"] + self.counts["unparseable"]

    def to_json(self) -> dict[str, Any]:
        """Return the row of `reject_sampling_results.json`."""
        row = {name: getattr(self, name) for name in _COLUMNS}
        if self.best_reasoning_content is not None:
            row["best_reasoning_content"] = self.best_reasoning_content
        return row


_NO_COLUMNS = ("generated", "failed_kinds", "no_text", "best_reasoning_content", "attempts")
_COLUMNS = [name for name in Summary.__slots__ if name not in _NO_COLUMNS]


def summarise(
    index: int,
    problem: Problem,
    rollouts: Sequence[Rollout | None],
    *,
    numeric: bool,
    logprobs: LogprobReader | None = None,
) -> Summary:
    """Summarise the rollouts of one problem.

    The best rollout is the ok one with the least error, then the highest reward, then the lowest sample id. Raises
    `CoverageError` where a rollout is not at the index of its sample id, or of another problem.

    Args:
        index: Number of the problem in the run.
        problem: The problem.
        rollouts: Sample i at `rollouts[i]`, None where it is missing.
        numeric: Whether errors are distances between numbers.
        logprobs: Reads recorded log-probabilities; None for none.
    """
    for sample_id, rollout in enumerate(rollouts):
        if rollout and (rollout.instance_id, rollout.sample_id) != (problem.instance_id, sample_id):
            raise CoverageError(
                f"rollout {rollout.sample_id} of {rollout.instance_id} stands where"
                f" rollout {sample_id} of {problem.instance_id} belongs: a bug in rollmill"
            )
    present = [rollout for rollout in rollouts if rollout]
    usable = [rollout for rollout in present if rollout.status == "ok"]
    best = min(usable, key=closeness, default=None)
    errors = [rollout_error(rollout) for rollout in rollouts]
    known = [error for error in errors if error is not None]
    counts = Counter(rollout.status if rollout else "missing" for rollout in rollouts)
    return Summary(
        index=index,
        instance_id=problem.instance_id,
        ground_truth=_truth(problem.answer, numeric),
        min_error=min(known, default=None),
        best_sample_id=best.sample_id if best else None,
        best_completion=best.completion if best else None,
        best_answer=best.verdict.answer if best and best.verdict else None,
        mean_error=mean(known),
        median_error=median(known),
        errors=errors,
        counts={status: counts[status] for status in ("ok", "unparseable", "failed", "missing")},
        accepted=len([rollout for rollout in usable if rollout.success is True]),
        truncated=len([rollout for rollout in present if is_cut_off(rollout.finish_reason)]),
        generated=len([rollout for rollout in present if rollout.completion is not None]),
        failed_kinds=Counter(
            rollout.error.type if rollout.error else "?" for rollout in present if not rollout.verdict
        ),
        no_text=Counter(
            rollout.verdict.reason
            for rollout in present
            if rollout.verdict and rollout.verdict.reason in NO_TEXT_REASONS
        ),
        best_reasoning_content=best.reasoning_content if best else None,
        attempts=attempts_of(rollouts, logprobs),
    )


def _truth(answer: str | None, numeric: bool) -> float | str | None:
    if not numeric or answer is None:
        return answer
    try:
        number = float(answer)
    except ValueError:
        return answer
    return number if math.isfinite(number) else answer
