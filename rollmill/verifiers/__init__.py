"""Verifiers: deterministic checks of one completion against one problem."""

from typing import TYPE_CHECKING

from rollmill.lazy_exports import lazy_exports

if TYPE_CHECKING:
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

# Imported when they are asked for: the process of a verifier of somebody's own needs none but its own.
__getattr__ = lazy_exports(
    __name__,
    {
        "BUILT_IN": "registry",
        "Verifier": "protocol",
        "VerifierFailed": "failure",
        "VerifierPool": "pool",
        "is_trusted": "registry",
        "make_verifier": "registry",
        "problem_fault": "registry",
    },
)
