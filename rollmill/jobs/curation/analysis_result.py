"""The result of an analysis."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rollmill.reports.plots.histogram import Histogram
from rollmill.statistics.summary import SummaryStats


class Analysis(BaseModel):
    """The numbers of a table of rollouts. Shares are between 0 and 1; None is an unknown number."""

    model_config = ConfigDict(frozen=True)

    rollouts: int
    problems: int
    quarantined: int = Field(description="rows of the input that could not be used; in none of the other numbers")
    failed: int = Field(description="something outside the model failed: neither right nor wrong")
    judged: int = Field(description="rollouts that did not fail")
    unparseable: int = Field(description="judged, but no answer could be found in what the model wrote")
    empty: int = Field(description="the model wrote nothing but white space")

    reasoning_only: int = Field(description="those of them that have thoughts: the answer stayed in the reasoning")
    truncated: int = Field(description="completions cut off at the limit on tokens")
    marked: int = Field(description="rollouts that are excluded from training")
    unanswered_calls: int = Field(description="tool calls without a result, those of the last turn too")
    stray_results: int = Field(description="results of tools that no call asked for")

    verdicts: int = Field(description="rollouts whose `success` is known")
    successes: int
    success_rate: float | None = Field(description="successes of verdicts")
    success_interval: tuple[float, float] | None = Field(description="95 % Wilson interval of the success rate")
    contradicted: int = Field(description="recorded as a success, although the record's own evaluation says no")

    reward: SummaryStats | None
    reward_histogram: Histogram | None
    reward_missing: int = Field(description="judged rollouts without a reward")
    answer_error: SummaryStats | None = Field(description="the verifier's distance to the ground truth")
    speedup: SummaryStats | None

    model_calls: SummaryStats | None
    total_model_calls: int | None
    messages: SummaryStats | None = Field(description="length of the trajectories in messages")
    tokens: SummaryStats | None = Field(description="length of the trajectories in tokens")
    completion_tokens: SummaryStats | None

    samples_per_problem: SummaryStats | None
    samples_counts: dict[int, int] | None = Field(description="problems by number of rollouts; None where too various")
    problem_reward: SummaryStats | None = Field(description="of the problems' mean rewards")
    problem_reward_histogram: Histogram | None
    problems_none_right: int = Field(description="problems with verdicts, none of them a success")
    problems_some_right: int
    problems_all_right: int
    problems_unjudged: int = Field(description="problems without any verdict")

    duplicates: int = Field(description="completions equal to an earlier one of their problem")
    duplicate_share: float | None = Field(description="of the completions that are not empty")
    repeated_problems: int = Field(description="problems with several completions that are not empty")
    identical_problems: int = Field(description="those of them whose completions are all the same")

    exit_statuses: dict[str, int] = Field(description="most frequent first; kinds beyond 40 are counted together")
    errors: dict[str, int]
    finish_reasons: dict[str, int]
    notes: list[str] = Field(description="what a user should look at, worst first")
