"""Outcomes of rollouts, and running totals of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from rollmill.records import is_cut_off

_NUMBERS = (float, int)


class RolloutOutcome(NamedTuple):
    """The numbers of one rollout that statistics and retries need."""

    status: str
    """`ok`, `unparseable` or `failed`."""
    success: bool
    error: float | None
    error_type: str | None
    truncated: bool
    completed: bool
    """Whether there is a completion: if the rollout failed nevertheless, the verifier failed."""
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    attempt: int
    max_tokens: int
    mean_alpha: float | None = None
    """The policy's weight in q* sampling, averaged over the completion's tokens; None elsewhere."""

    @property
    def failed(self) -> bool:
        """Return whether the rollout has an error in place of a verdict."""
        return self.status == "failed"

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Self:
        """Read a journal's row. Raises LookupError, TypeError or AttributeError for a row that is not a rollout."""
        verdict, error, usage, metadata = row["verdict"], row["error"], row["usage"], row["metadata"]
        diagnostics = metadata.get("diagnostics")
        without_verdict = "failed" if error else "ok"
        return cls(
            status=verdict["status"] if verdict else without_verdict,
            success=bool(row["success"]),
            error=verdict["error"] if verdict else None,
            error_type=error["type"] if error else None,
            truncated=is_cut_off(row["finish_reason"]),
            completed=row["completion"] is not None,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            latency_s=row["latency_s"] or 0.0,
            attempt=metadata.get("attempt", 0),
            max_tokens=metadata.get("max_tokens", 0),
            mean_alpha=diagnostics.get("alpha_mean") if isinstance(diagnostics, dict) else None,
        )

    def check(self) -> None:
        """Raise TypeError or ValueError where a value has the wrong type, or is out of range."""
        if self.status not in ("ok", "unparseable", "failed"):
            raise ValueError("status")
        for count in (self.prompt_tokens, self.completion_tokens, self.attempt, self.max_tokens):
            if type(count) is not int or not 0 <= count < 2**63:
                raise TypeError("a count")
        for number in (self.latency_s, self.error, self.mean_alpha):
            if number is not None and type(number) not in _NUMBERS:
                raise TypeError("a number")


@dataclass
class Tally:
    """Running totals of rollouts."""

    done: int = 0
    ok: int = 0
    unparseable: int = 0
    failed: int = 0
    success: int = 0
    error_sum: float = 0.0
    errors_counted: int = 0
    completion_tokens: int = 0
    alpha_sum: float = 0.0
    """Sum of alpha over tokens."""
    alpha_tokens: int = 0

    def add(self, outcome: RolloutOutcome) -> None:
        """Count one rollout."""
        self.done += 1
        if outcome.status == "ok":
            self.ok += 1
        elif outcome.status == "unparseable":
            self.unparseable += 1
        else:
            self.failed += 1
        self.success += 1 if outcome.success else 0
        if outcome.error is not None:
            self.error_sum += outcome.error
            self.errors_counted += 1
        self.completion_tokens += outcome.completion_tokens
        if outcome.mean_alpha is not None:
            self.alpha_sum += outcome.mean_alpha * outcome.completion_tokens
            self.alpha_tokens += outcome.completion_tokens

    def counts(self) -> tuple[int, int, int, int]:
        """Return the counts: done, ok, unparseable, failed."""
        return self.done, self.ok, self.unparseable, self.failed
