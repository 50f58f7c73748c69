"""Failures of a verification, as opposed to verdicts on an answer."""

from __future__ import annotations

from typing import Literal

from rollmill.errors import describe
from rollmill.records import Verdict

__all__ = ["CpuTimeExceededError", "FailureType", "VerifierFailed", "describe", "timeout_verdict"]

FailureType = Literal[
    "verifier_raised",
    "verifier_timeout",
    "verifier_died",
    "verifier_unavailable",
    "verifier_unparseable",
    "problem_refused",
]
"""`verifier_unavailable`: a sandbox or model that the verifier needs could not be reached. `verifier_unparseable`: a
judge's response has no score. `problem_refused`: the problem cannot be judged, whatever the completion."""


class VerifierFailed(Exception):  # noqa: N818 - public name, beside the record Failure that is made of it
    """Raised where a verification has no verdict; `type` and `message` (one line) are those of a `Failure`."""

    def __init__(self, type: FailureType, message: str) -> None:  # noqa: A002
        self.type: FailureType = type
        self.message = " ".join(message.split())
        super().__init__(f"{type}: {self.message}")


class CpuTimeExceededError(VerifierFailed):
    """Raised where a verification used up its CPU time, for which the answer is to blame, not the infrastructure."""

    def __init__(self, limit_s: float) -> None:
        super().__init__("verifier_timeout", f"no verdict within {limit_s:g} s of CPU time")


def timeout_verdict(verifier: str) -> Verdict:
    """Return the verdict on an answer whose verification, by `name@version`, exceeded its CPU time limit."""
    return Verdict(verifier=verifier, status="unparseable", reason="verifier_timeout", reward=0.0, success=False)
