"""Saves blocks at a Prefect server, and compares the contents of stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.kinds import BLOCKS


def save_blocks(environment: dict[str, str], *blocks: tuple[str, str, dict[str, Any]]) -> None:
    """Register all block types at the server of an environment, and save blocks: (kind, name, values)."""
    kinds = {kind.get_block_type_slug(): kind for kind in BLOCKS}
    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        for kind in BLOCKS:
            kind.register_type_and_schema()
        for slug, name, values in blocks:
            kinds[slug](**values).save(name, overwrite=True)


def check_copied(stored: dict[str, bytes], start: str, folder: Path, *beside: Path) -> set[str]:
    """Check that all objects with a prefix equal the files in the folder; return their names without the prefix."""
    contents = {name.removeprefix(start): content for name, content in stored.items() if name.startswith(start)}
    elsewhere = {path.name: path for path in beside}
    assert contents == {name: elsewhere.get(name, folder / name).read_bytes() for name in contents}
    return set(contents)
