"""Data files: JSON Lines, JSON and Parquet, local or remote, plain or compressed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, Row, read_json, read_json_lines
from rollmill.problems.arrow_rows import BATCH_ROWS, read_batches

_LINES = (".jsonl", ".ndjson")
_KINDS = (*_LINES, ".json", ".parquet")
_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_OTHERS = (".csv", ".tsv", ".txt", ".arrow", ".zip", ".tar", ".pkl", ".yaml", ".yml", ".md", ".xlsx")


def is_data_file(dataset: str) -> bool:
    """Whether a source means one file, by its name (`.jsonl`, `.json.gz`, ...), its URL, or what is on disk."""
    return (
        _kind(dataset) is not None or "://" in dataset or dataset.lower().endswith(_OTHERS) or Path(dataset).is_file()
    )


def read_data_file(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields (1-based line or position, row), streaming but for `.json`.

    A `.json` file holds an array, an object with one, or JSON Lines. Raises `InputError` where the file cannot be
    read or is of no known kind.
    """
    kind = _kind(path)
    if kind is None:
        raise InputError(
            f"{path} is of no kind that can be read: convert it to {', '.join(_KINDS)} "
            f"(each also with {', '.join(_COMPRESSED)}), or name a directory"
        )
    if kind == ".parquet":
        return _read_parquet(path)
    return read_json_lines(path) if kind in _LINES or _holds_lines(path) else read_json(path)


def folder_of(path: str) -> Path | None:
    """The folder in which a local file lies; None for a remote one."""
    return None if "://" in path else Path(path).expanduser().resolve().parent


def _kind(path: str) -> str | None:
    name = path.lower().split("?", 1)[0] if "://" in path else path.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for kind in _KINDS if name.endswith(kind)), None)


def _holds_lines(path: str) -> bool:
    """Whether a `.json` file's first line is an object by itself, with another line after it."""
    first = list(islice(read_json_lines(path), 2))
    return len(first) == 2 and isinstance(first[0][1], dict)


def _read_parquet(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        with fsspec.open(path, "rb", compression="infer") as file:
            if not path.lower().endswith(_COMPRESSED):
                yield from pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS)
                return
            # Parquet is read from its end, where a packed stream cannot begin.
            with tempfile.TemporaryFile() as unpacked:
                shutil.copyfileobj(file, unpacked)
                yield from pq.ParquetFile(unpacked).iter_batches(batch_size=BATCH_ROWS)

    try:
        yield from read_batches(batches())
    except Exception as error:  # every file system, decompressor and Arrow raise types of their own
        raise InputError(f"cannot read {path}: {error}") from error
