"""Builds the journal's row of one agent rollout."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rollmill.agents.playing import AgentRun
from rollmill.grading.evaluation import Evaluation
from rollmill.grading.problem import GradedProblem
from rollmill.records import Failure, Rollout, Verdict

VERIFIER = "performance@1"


class AgentRollout(Rollout):
    """A rollout with the additional fields of agent rollouts.

    `completion` is null: the agent's result is `git_diff`. `latency_s`: seconds that the agent ran. `finish_reason`:
    of the model's last answer.
    """

    problem_statement: str
    git_diff: str | None
    """One patch against the start commit; null if it was not taken."""
    exit_status: str
    speedup: float | None = Field(allow_inf_nan=False)
    evaluation_info: dict[str, Any] | None
    """The grader's `Evaluation`."""


def make_record(
    problem: GradedProblem,
    played: AgentRun,
    evaluation: Evaluation | None,
    *,
    sample_id: int,
    seed: int,
    metadata: dict[str, Any],
    git_diff: str | None = None,
) -> AgentRollout:
    """Build the row: with a verdict if the agent ran and was graded, else with the error.

    Args:
        problem: The graded problem.
        played: The agent's result.
        evaluation: Its grade; None if `played` has an error.
        sample_id: Index among the problem's rollouts.
        seed: Seed of the rollout's requests.
        metadata: The run's (`model`, `attempt`, ...); `steps` and the agent's `submission` are added.
        git_diff: Patch against the start commit; None for the evaluation's.
    """
    error = played.error or (_grading_error(evaluation) if evaluation else None)
    if evaluation is None and error is None:
        raise ValueError("a rollout that was played to its end has an evaluation")
    verdict = _verdict(evaluation) if evaluation and not error else None
    if git_diff is None and evaluation and evaluation.git_precheck:
        git_diff = evaluation.git_precheck.raw_diff
    agent_metadata = {"steps": played.steps} | ({"submission": played.submission} if played.submission else {})
    return AgentRollout(
        instance_id=problem.instance_id,
        sample_id=sample_id,
        seed=seed,
        problem_statement=problem.problem_statement,
        messages=played.messages,
        **played.context,
        completion=None,
        git_diff=git_diff,
        exit_status=played.exit_status,
        reward=verdict.reward if verdict else None,
        speedup=evaluation.speedup if verdict and evaluation else None,
        success=verdict.success if verdict else None,
        verdict=verdict,
        error=error,
        usage=played.usage,
        latency_s=round(played.seconds, 4),
        finish_reason=played.finish_reason,
        model_calls=played.model_calls,
        evaluation_info=evaluation.model_dump(mode="json") if evaluation else None,
        metadata=metadata | agent_metadata,
    )


def _grading_error(evaluation: Evaluation) -> Failure | None:
    if evaluation.error is not None:
        return Failure(type=evaluation.error_type or "grading", message=evaluation.error)
    if evaluation.reward is None or evaluation.success is None:
        return Failure(type="grading", message="the evaluation has neither reward nor error")
    return None


def _verdict(evaluation: Evaluation) -> Verdict:
    assert evaluation.reward is not None
    assert evaluation.success is not None
    return Verdict(
        verifier=VERIFIER,
        status="ok",
        reason=evaluation.reason,
        reward=evaluation.reward,
        success=evaluation.success,
    )
