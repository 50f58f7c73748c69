"""The generated-data document of the project's forerunner: `{"metadata", "examples", "summary"}`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from rollmill.exports.packing import output_kind, write_packed, write_rows

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus


def write_seed_format(path: Path, metadata: dict[str, Any], rows: Iterable[bytes], summary: dict[str, Any]) -> None:
    """Write records, copied as they are, whole or not at all, holding one at a time.

    `.json`: one document, a record per line where records have no line breaks of their own. `.jsonl`: the records
    only, a line each. `.gz` and `.zst` behind either compress it. Raises `InputError` for other names.
    """
    layout = output_kind(path).layout
    with write_packed(path) as file:
        if layout == ".jsonl":
            write_rows(file, rows, layout)
            return
        file.write(b'{"metadata": ' + orjson.dumps(metadata) + b',\n"examples": [')
        write_rows(file, rows, layout)
        file.write(b'\n],\n"summary": ' + orjson.dumps(summary) + b"}\n")


def generated_metadata(corpus: Corpus, table: pl.DataFrame) -> dict[str, Any]:
    """Return the input's own metadata, and what the table says.

    That is `samples_per_task` (the most), `total_tasks` and `total_samples`.
    """
    counts = table.group_by("instance_id").len()
    return {
        **corpus.metadata,
        "samples_per_task": counts["len"].max() or 0,
        "total_tasks": counts.height,
        "total_samples": table.height,
    }


def summary(table: pl.DataFrame) -> dict[str, Any]:
    """Return the document's `summary` of a table of rollouts.

    `successful` + `failed` = `total_examples`: whatever is not known to be a success counts as failed, as the format
    has it. `average_reward`: over rollouts that have a reward; 0.0 where none has, since readers expect a number.
    """
    successful = int(table["success"].sum() or 0)
    return {
        "total_examples": table.height,
        "successful": successful,
        "failed": table.height - successful,
        "average_reward": table["reward"].mean() or 0.0,
        "total_model_calls": int(table["model_calls"].sum() or 0),
    }
