"""Built-in verifiers as custom ones: in processes without sandbox, limits and forks."""

from __future__ import annotations

from rollmill.verifiers.math_equality import MathVerifier
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier


class PlainMath(MathVerifier):
    """`math`."""


class PlainReasoningGym(ReasoningGymVerifier):
    """`reasoning_gym`."""
