"""Built-in verifiers as a user's own would be: in processes without a sandbox, without limits, without forks."""

from __future__ import annotations

from rollmill.verifiers.math_equality import MathVerifier
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier


class PlainMath(MathVerifier):
    """`math`."""


class PlainReasoningGym(ReasoningGymVerifier):
    """`reasoning_gym`."""
