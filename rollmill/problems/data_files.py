"""Read data files: JSON Lines, JSON and Parquet, local or remote, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rollmill.errors import InputError
from rollmill.files.arrow_rows import BATCH_ROWS, read_batches
from rollmill.files.formats import COMPRESSED, SUFFIXES, file_kind, kind_by_name
from rollmill.files.parquet import open_parquet
from rollmill.files.rows import BadRow, Row, read_json, read_json_lines

_OTHERS = (".csv", ".tsv", ".txt", ".arrow", ".zip", ".tar", ".pkl", ".yaml", ".yml", ".md", ".xlsx")

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_ADVICE = "its content is still at Git LFS: `git lfs pull` in its folder fetches it"


def is_data_file(dataset: str) -> bool:
    """Return whether a source is a single file, by its suffix (`.jsonl`, `.json.gz`, ...), as a URL, or on disk."""
    return (
        kind_by_name(dataset) is not None
        or "://" in dataset
        or dataset.lower().endswith(_OTHERS)
        or Path(dataset).is_file()
    )


def read_data_file(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (1-based line or position, row); all formats but `.json` are streamed.

    A `.json` file holds an array, an object with one, or JSON Lines. Raises `InputError` where the file cannot be
    read or is of no known kind.
    """
    if "://" not in path and is_lfs_pointer(Path(path).expanduser()):
        raise InputError(f"{path} holds no rows: {LFS_ADVICE}")
    kind = file_kind(path)
    if kind is None:
        raise InputError(
            f"{path} is of no kind that can be read: convert it to {', '.join(SUFFIXES)} "
            f"(each also with {', '.join(COMPRESSED)}), or name a directory"
        )
    if kind == "parquet":
        return _read_parquet(path)
    return read_json_lines(path) if kind == "lines" else read_json(path)


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a local file is a Git LFS pointer, whose content is not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def folder_of(path: str) -> Path | None:
    """Return the folder of a local file; None for a remote one."""
    return None if "://" in path else Path(path).expanduser().resolve().parent


def _read_parquet(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    with open_parquet(path) as file:
        yield from read_batches(file.iter_batches(batch_size=BATCH_ROWS))
