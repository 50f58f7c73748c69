"""Statistics of one run: what the rollouts came to, and what the least of N hides."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rollmill.jobs.rejection_sampling.coverage import Coverage
from rollmill.jobs.rejection_sampling.pass_at_k import PassAtK, pass_at_ks
from rollmill.jobs.rejection_sampling.random_baseline import GuessBaseline
from rollmill.jobs.rejection_sampling.tally import ProblemTally
from rollmill.statistics.summary import SummaryStats, spread


class Statistics(BaseModel):
    """Every share is between 0 and 1, and None where it would be a share of nothing.

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

    least_error: SummaryStats | None
    """Over problems: the least error of each that has one."""
    share_exact: float | None
    """Of judged problems: those whose least error is exactly 0."""
    share_solved: float | None
    """Of judged problems: those with at least one accepted rollout."""

    error: SummaryStats | None
    """Over rollouts: the error of each that has one."""
    accepted: int
    """Rollouts that the verifier calls a success: within `accept_error` where errors are numbers."""
    accepted_of_ok: float | None
    accepted_of_judged: float | None
    parse_rate: float | None
    """ok of judged rollouts."""
    truncation_rate: float | None
    """Of the rollouts with a completion: those that ended at the token limit."""
    truncated: int

    pass_at_k: list[PassAtK]
    guess_baseline: GuessBaseline


def make_statistics(tally: ProblemTally, *, expected: int, num_rollout: int, accept_error: float | None) -> Statistics:
    """The statistics of a whole run.

    `expected` is how many rollouts the run should have, known from its parameters and not from its rollouts.
    Raises `CoverageError` where the rollouts do not add up to it.
    """
    coverage = tally.coverage(expected)
    judged_problems = sum(times for (n, _), times in tally.judged.items() if n)
    solved = sum(times for (_, c), times in tally.judged.items() if c)
    return Statistics(
        problems=tally.problems,
        judged_problems=judged_problems,
        num_rollout=num_rollout,
        accept_error=accept_error,
        coverage=coverage,
        failed_kinds=dict(tally.failed_kinds.most_common()),
        least_error=spread(tally.least_errors()),
        share_exact=_share(tally.exact, judged_problems),
        share_solved=_share(solved, judged_problems),
        error=spread(tally.errors()),
        accepted=tally.accepted,
        accepted_of_ok=_share(tally.accepted, coverage.ok),
        accepted_of_judged=_share(tally.accepted, coverage.judged),
        parse_rate=_share(coverage.ok, coverage.judged),
        truncation_rate=_share(tally.truncated, tally.generated),
        truncated=tally.truncated,
        pass_at_k=pass_at_ks(tally.judged.elements(), num_rollout),
        guess_baseline=tally.guess_baseline(),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
