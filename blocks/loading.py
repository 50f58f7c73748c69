"""Loads saved blocks by name."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block

from rollmill.errors import InputError

BlockT = TypeVar("BlockT", bound=Block)


def load_block(kind: type[BlockT], name: str) -> BlockT:
    """Return the block of that name on the Prefect server. Raises `InputError` where there is none."""
    try:
        block = kind.load(name)
    except ValueError as error:
        raise InputError(
            f"there is no block {kind.get_block_type_slug()}/{name} on the Prefect server: "
            "`prefect block ls` lists them, the UI's Blocks page makes them"
        ) from error
    assert isinstance(block, kind)
    return block
