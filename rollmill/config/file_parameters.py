"""What the parameters of several jobs say of files: where results are copied to."""

from __future__ import annotations

from rollmill.config.parameter import parameter

STORE_BLOCK = parameter(
    None,
    "Results",
    "Store block",
    "Name of a result-store block: a shared folder or S3 that the results are copied to, too.",
    metavar="BLOCK",
)
"""`store_block: str | None` of a job; no part of what its run is."""
