"""Statistics of one run: coverage, errors, accuracy and pass@k."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from rollmill.generation.verification import REASONING_ONLY
from rollmill.jobs.rejection_sampling.coverage import Coverage
from rollmill.jobs.rejection_sampling.random_baseline import GuessBaseline
from rollmill.jobs.rejection_sampling.tally import ProblemTally
from rollmill.statistics.failures import FailureWords
from rollmill.statistics.sampling_curves import ANY_RIGHT, CurvePoint, SamplingCurve
from rollmill.statistics.summary import SummaryStats, summarize

_MOST_WORDS = 10


class Statistics(BaseModel):
    """Statistics of a run. Every share is between 0 and 1, and None where it would be a share of nothing.

    A judged rollout is ok or unparseable: an unparseable answer is the model's failure, a failed rollout is not.
    """

    model_config = ConfigDict(frozen=True)

    problems: int
    judged_problems: int
    """Problems with at least one judged rollout."""
    num_rollout: int
    accept_error: float | None
    coverage: Coverage
    failed_kinds: dict[str, int]
    """Failed rollouts by the type of their error, most frequent first."""
    failed_words: list[FailureWords] = []
    """Failed rollouts by the message of their error: the most frequent ones."""

    least_error: SummaryStats | None
    """Over problems: the least error of each problem that has one."""
    share_exact: float | None
    """Share of the judged problems whose least error is exactly 0."""
    share_solved: float | None
    """Share of the judged problems with at least one accepted rollout."""

    error: SummaryStats | None
    """Over rollouts: the error of each rollout that has one."""
    accepted: int
    """Rollouts that are a success by the verifier: within `accept_error` where errors are numbers."""
    accepted_of_ok: float | None
    accepted_of_judged: float | None
    parse_rate: float | None
    """Share of ok rollouts among the judged ones."""
    truncation_rate: float | None
    """Share of the completions that ended at the token limit."""
    truncated: int
    reasoning_only: int = 0
    """Rollouts with thoughts alone, without content: unparseable."""
    no_text: dict[str, int] = {}
    """Rollouts without content, by reason, thoughts alone among them: unparseable."""

    pass_at_k: list[CurvePoint]
    selection_curves: list[SamplingCurve] = []
    """Accuracy of k rollouts of which one is selected without the ground truth: maj@k, and by the available scores."""
    guess_baseline: GuessBaseline

    @property
    def curves(self) -> list[SamplingCurve]:
        """All curves over k, pass@k first."""
        return [SamplingCurve(name=ANY_RIGHT, points=self.pass_at_k), *self.selection_curves]


def make_statistics(
    tally: ProblemTally,
    *,
    expected: int,
    num_rollout: int,
    accept_error: float | None,
    failed_words: Sequence[FailureWords] = (),
) -> Statistics:
    """Compute the statistics of a whole run.

    Raises `CoverageError` where the rollouts do not add up to `expected`.

    Args:
        tally: Counts of all rollouts.
        expected: Number of rollouts that the run should have, by its parameters.
        num_rollout: Rollouts per problem.
        accept_error: The greatest error that counts as success; None where the verifier decides.
        failed_words: Messages of the failed rollouts, most frequent first.
    """
    coverage = tally.coverage(expected)
    judged_problems = sum(times for (n, _), times in tally.judged.items() if n)
    passing, *others = tally.curves.curves()
    solved = sum(times for (_, c), times in tally.judged.items() if c)
    return Statistics(
        problems=tally.problems,
        judged_problems=judged_problems,
        num_rollout=num_rollout,
        accept_error=accept_error,
        coverage=coverage,
        failed_kinds=dict(tally.failed_kinds.most_common()),
        failed_words=list(failed_words[:_MOST_WORDS]),
        least_error=summarize(tally.least_errors()),
        share_exact=_share(tally.exact, judged_problems),
        share_solved=_share(solved, judged_problems),
        error=summarize(tally.errors()),
        accepted=tally.accepted,
        accepted_of_ok=_share(tally.accepted, coverage.ok),
        accepted_of_judged=_share(tally.accepted, coverage.judged),
        parse_rate=_share(coverage.ok, coverage.judged),
        truncation_rate=_share(tally.truncated, tally.generated),
        truncated=tally.truncated,
        reasoning_only=tally.no_text[REASONING_ONLY],
        no_text=dict(tally.no_text.most_common()),
        pass_at_k=passing.points,
        selection_curves=others,
        guess_baseline=tally.guess_baseline(),
    )


def _share(part: int, total: int) -> float | None:
    return part / total if total else None
