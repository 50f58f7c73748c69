"""The evaluation of one change, with the fields of the seeds' service at `/evaluate_v3`."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rollmill.grading.problem import GradedProblem


class GitPrecheck(BaseModel):
    """What was changed, and whether that is allowed."""

    model_config = ConfigDict(frozen=True)

    is_git: bool
    ok: bool
    changed_files: list[str] = Field(default_factory=list)
    raw_status: str = ""
    """As `git status --porcelain` against the start commit."""
    raw_diff: str = ""
    """One patch against the start commit, staged, unstaged and untracked changes in it; `git apply` takes it."""
    reason: str | None = None


class TimedPair(BaseModel):
    """One pair of runs on the same inputs. Seconds of wall time."""

    model_config = ConfigDict(frozen=True)

    seed: int
    before_s: float
    after_s: float
    speedup: float


class SpeedupDetails(BaseModel):
    """All pairs, and the interval of their mean."""

    model_config = ConfigDict(frozen=True)

    average_speedup: float
    """Geometric mean of the pairs'."""
    min_speedup: float
    max_speedup: float
    low: float
    high: float
    """Bounds of the 95% interval of `average_speedup`."""
    total_comparisons: int
    comparisons: list[TimedPair]


class Evaluation(BaseModel):
    """What a change is worth. `error`: grading itself failed, and there is no reward."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    success: bool | None
    """Allowed, built, right and faster beyond noise; None where grading failed."""
    reward: float | None = Field(allow_inf_nan=False)
    speedup: float | None = Field(default=None, allow_inf_nan=False)
    reason: str | None = None
    """Why it is no success, in words."""
    phase: str | None = None
    """Where it ended: `git_precheck`, `build`, `test`, `benchmark`; None where all was passed."""
    error: str | None = None
    error_type: str | None = None
    git_precheck: GitPrecheck | None = None
    build_returncode: int | None = None
    build_output: str = ""
    test_returncode: int | None = None
    test_output: str = ""
    benchmark_returncode: int | None = None
    benchmark_output: str = ""
    speedup_details: SpeedupDetails | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class Grader(Protocol):
    """Grades what an agent left in a sandbox; in this process or behind a service."""

    def grade(self, problem: GradedProblem, sandbox_id: str) -> Evaluation:
        """Never raises for what the change did; an evaluation with an `error` is a failure of grading."""
        ...
