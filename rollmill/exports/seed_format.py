"""The generated-data document of rollmill's predecessor: `{"metadata", "examples", "summary"}`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from rollmill.exports.output_files import open_output, parse_output_name, write_rows

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus


def write_seed_format(path: Path, metadata: dict[str, Any], rows: Iterable[bytes], summary: dict[str, Any]) -> None:
    """Write records unchanged, atomically, with one of them in memory at a time. Raises `InputError` for other names.

    Args:
        path: `.json`: one document, with a record per line unless it has line breaks itself; `.jsonl`: the records
            only, one per line; with `.gz` or `.zst` after it, compressed.
        metadata: the document's `metadata`.
        rows: the records' JSON.
        summary: the document's `summary`.
    """
    layout = parse_output_name(path).layout
    with open_output(path) as file:
        if layout == ".jsonl":
            write_rows(file, rows, layout)
            return
        file.write(b'{"metadata": ' + orjson.dumps(metadata) + b',\n"examples": [')
        write_rows(file, rows, layout)
        file.write(b'\n],\n"summary": ' + orjson.dumps(summary) + b"}\n")


def make_metadata(corpus: Corpus, table: pl.DataFrame) -> dict[str, Any]:
    """Return the input's own metadata, with counts of the table.

    These are `samples_per_task` (the largest number), `total_tasks` and `total_samples`.
    """
    counts = table.group_by("instance_id").len()
    return {
        **corpus.metadata,
        "samples_per_task": counts["len"].max() or 0,
        "total_tasks": counts.height,
        "total_samples": table.height,
    }


def make_summary(table: pl.DataFrame) -> dict[str, Any]:
    """Return the document's `summary` of a table of rollouts.

    `successful` + `failed` = `total_examples`: as this format requires, every rollout of unknown success counts as
    failed. `average_reward` is over rollouts with a reward, 0.0 where there are none, since readers expect a number.
    """
    successful = int(table["success"].sum() or 0)
    return {
        "total_examples": table.height,
        "successful": successful,
        "failed": table.height - successful,
        "average_reward": table["reward"].mean() or 0.0,
        "total_model_calls": int(table["model_calls"].sum() or 0),
    }
