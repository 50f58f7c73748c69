"""The evaluation of one change, with the fields of a service's answer at `/evaluate_v3`."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rollmill.grading.problem import GradedProblem


class GitPrecheck(BaseModel):
    """The changed files, and whether the changes are allowed."""

    model_config = ConfigDict(frozen=True)

    is_git: bool
    ok: bool
    changed_files: list[str] = Field(default_factory=list)
    raw_status: str = ""
    """Changes against the start commit, as `git status --porcelain` prints them."""
    raw_diff: str = ""
    """One patch against the start commit with staged, unstaged and untracked changes, for `git apply`."""
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
    """Geometric mean of the pairs' speedups."""
    min_speedup: float
    max_speedup: float
    low: float
    high: float
    """Bounds of the 95% interval of `average_speedup`."""
    total_comparisons: int
    comparisons: list[TimedPair]


class Evaluation(BaseModel):
    """The grade of a change. `error`: grading itself failed, and there is no reward."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    success: bool | None
    """Allowed, built, correct and faster beyond noise; None if grading failed."""
    reward: float | None = Field(allow_inf_nan=False)
    speedup: float | None = Field(default=None, allow_inf_nan=False)
    reason: str | None = None
    """Why it is no success."""
    phase: str | None = None
    """Phase that failed: `git_precheck`, `build`, `test`, `benchmark`; None if all passed."""
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
    flags: list[str] = Field(default_factory=list)
    """What a person should look at, because it may be no real speed, in words. They do not change the reward."""
    metadata: dict[str, Any] = Field(default_factory=dict)


class Grader(Protocol):
    """Grades the work tree that an agent left in a sandbox; in this process or by a service."""

    def grade(self, problem: GradedProblem, sandbox_id: str) -> Evaluation:
        """Grade the change. Never raises because of it; an evaluation with an `error` is a failure of grading."""
        ...
