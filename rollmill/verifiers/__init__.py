"""Verifiers: deterministic checks of one completion against one problem."""

from typing import TYPE_CHECKING

from rollmill.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from rollmill.verifiers.failure import VerifierFailed
    from rollmill.verifiers.pool import VerifierPool
    from rollmill.verifiers.protocol import CompletionJudge, Verifier
    from rollmill.verifiers.registry import VERIFIERS, is_trusted, make_verifier, make_verifiers, problem_fault
    from rollmill.verifiers.weighted import open_verifiers

__all__ = [
    "VERIFIERS",
    "CompletionJudge",
    "Verifier",
    "VerifierFailed",
    "VerifierPool",
    "is_trusted",
    "make_verifier",
    "make_verifiers",
    "open_verifiers",
    "problem_fault",
]

# Imported on first use: a worker process imports only its own verifier.
__getattr__ = lazy_exports(
    __name__,
    {
        "VERIFIERS": "registry",
        "CompletionJudge": "protocol",
        "Verifier": "protocol",
        "VerifierFailed": "failure",
        "VerifierPool": "pool",
        "is_trusted": "registry",
        "make_verifier": "registry",
        "make_verifiers": "registry",
        "open_verifiers": "weighted",
        "problem_fault": "registry",
    },
)
