"""Parameters of files that several jobs share."""

from __future__ import annotations

from rollmill.config.parameter import parameter

STORE_BLOCK = parameter(
    None,
    "Results",
    "Store block",
    "Name of a result-store block: a shared folder or S3 that the results are copied to, too.",
    metavar="BLOCK",
)
"""The parameter `store_block: str | None` of a job; not part of a run's identity."""
