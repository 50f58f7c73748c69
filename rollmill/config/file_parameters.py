"""What the parameters of several jobs say of files: where results are copied to, and what data may name."""

from __future__ import annotations

from typing import Any

from rollmill.config.parameter import parameter

STORE_BLOCK = parameter(
    None,
    "Results",
    "Store block",
    "Name of a result-store block: a shared folder or S3 that the results are copied to, too.",
    metavar="BLOCK",
)
"""`store_block: str | None` of a job; no part of what its run is."""


def image_folders_field(group: str) -> Any:
    """Make the field `image_folders: list[str]` of a job that reads images that data name; no part of what it is."""
    return parameter(
        [],
        group,
        "Image folders",
        "Further folders in which rows may name image files; else only in the data's own folder.",
        metavar="DIR",
    )
