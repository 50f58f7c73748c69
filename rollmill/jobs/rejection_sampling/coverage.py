"""Coverage: the status of every expected rollout."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator


class CoverageError(RuntimeError):
    """Rollouts were lost or counted twice: a bug in rollmill, never the user's mistake."""


class Coverage(BaseModel):
    """Counts of rollouts: `expected = ok + unparseable + failed + missing`.

    Raises `CoverageError` where the sum is wrong.
    """

    model_config = ConfigDict(frozen=True)

    expected: NonNegativeInt
    ok: NonNegativeInt
    unparseable: NonNegativeInt
    failed: NonNegativeInt
    """Failed outside the model: not a wrong answer, and without a reward."""
    missing: NonNegativeInt
    """Not attempted yet."""

    @model_validator(mode="after")
    def _adds_up(self) -> Coverage:
        if self.expected != self.ok + self.unparseable + self.failed + self.missing:
            raise CoverageError(
                f"rollouts do not add up, nothing is exported: {self.line()}. "
                "This is a bug in rollmill: please report it with the run's manifest.json"
            )
        return self

    @property
    def judged(self) -> int:
        """Number of rollouts that were judged: ok and unparseable."""
        return self.ok + self.unparseable

    def line(self) -> str:
        """Return the counts in one line."""
        return (
            f"expected {self.expected:,} = ok {self.ok:,} + unparseable {self.unparseable:,}"
            f" + failed {self.failed:,} + missing {self.missing:,}"
        )
