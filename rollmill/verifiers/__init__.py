"""Verifiers: deterministic checks of one completion against one problem."""

from rollmill.verifiers.failure import VerifierFailed
from rollmill.verifiers.pool import VerifierPool
from rollmill.verifiers.protocol import Verifier
from rollmill.verifiers.registry import BUILT_IN, is_trusted, make_verifier, problem_fault

__all__ = [
    "BUILT_IN",
    "Verifier",
    "VerifierFailed",
    "VerifierPool",
    "is_trusted",
    "make_verifier",
    "problem_fault",
]
