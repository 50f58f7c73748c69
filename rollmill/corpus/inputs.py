"""Inputs: what a user names (files, folders, patterns, run directories, URLs) as the files to read."""

from __future__ import annotations

import glob
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import msgspec
import orjson

from rollmill.errors import InputError
from rollmill.files.arrow_rows import BATCH_ROWS, read_batches
from rollmill.files.formats import COMPRESSED, SUFFIXES, Kind, file_kind, kind_by_name
from rollmill.files.io import is_packed
from rollmill.files.names import MANIFEST
from rollmill.files.parquet import open_parquet
from rollmill.files.raw_row import RawRow
from rollmill.files.remote import is_remote
from rollmill.files.rows import BadRow, Row, raw_json_array, raw_json_lines
from rollmill.generation.manifest import read_manifest
from rollmill.generation.run import JOURNALS

_STRUCTURED = frozenset({"messages", "trajectory", "verdict", "evaluation_info", "metadata", "usage", "error"})
_PATTERN = frozenset("*?[")
ASIDE = (".dropped.", ".quarantine.", ".index.parquet")
"""Parts of the names of what was put aside, and of journals' indexes; a folder's files, and those that a pattern
matches, are read without them."""
_HTTP = ("http://", "https://")
_FILE = "file://"
_json_text = msgspec.json.Decoder(msgspec.Raw)


class Source(NamedTuple):
    """One file of records. `run`: the run directory whose journal it is."""

    path: str
    kind: Kind
    run: Path | None = None

    @property
    def anywhere(self) -> bool:
        """Whether a record can be read at its place, without reading the file from its beginning."""
        return self.kind == "lines" and not is_remote(self.path) and not is_packed(self.path)

    @property
    def folder(self) -> Path | None:
        """The local folder that paths in its records are relative to; None for a remote file."""
        return None if is_remote(self.path) else self.run or Path(self.path).resolve().parent

    def raw_rows(self, rest: Row | None = None) -> Iterator[RawRow | BadRow]:
        """The records' bytes, in order, or why there are none; what a document holds beside them goes into `rest`."""
        if self.kind == "lines":
            return raw_json_lines(self.path)
        return raw_json_array(self.path, rest) if self.kind == "document" else _parquet_rows(self.path)


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """The files behind what the user named, in its order. Raises `InputError` where one is none, or given twice."""
    try:
        sources = [source for given in inputs for source in _sources(given.removeprefix(_FILE))]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    seen: set[str] = set()
    for source in sources:
        place = source.path if is_remote(source.path) else str(Path(source.path).resolve())
        if place in seen:
            raise InputError(f"{source.path} is given twice: its rollouts would count twice")
        seen.add(place)
    return sources


def _sources(given: str) -> list[Source]:
    if not given:
        raise InputError("an input is empty: name a file, a folder, a pattern or a URL")
    if is_remote(given):
        return [_file(path) for path in _remote(given)]
    path = Path(given).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [_journal(path) or _file(str(path))]
    if not _PATTERN.isdisjoint(given):
        found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute patterns, with **
        if found := _without_aside(found, given):
            return [source for one in found for source in _sources(one)]
        raise InputError(f"{given}: no file matches this pattern")
    raise InputError(f"{given}: there is no such file or folder")


def _without_aside(found: list[str], pattern: str) -> list[str]:
    parts = [part for part in ASIDE if part not in pattern]
    return [path for path in found if not any(part in path.rsplit("/", 1)[-1] for part in parts)]


def _remote(given: str) -> list[str]:
    if _PATTERN.isdisjoint(given) or given.startswith(_HTTP):  # where a question mark begins a query
        return [given]
    try:
        system, pattern = fsspec.core.url_to_fs(given)
        found = [system.unstrip_protocol(path) for path in _without_aside(sorted(system.glob(pattern)), given)]
    except Exception as error:  # every file system raises types of its own
        raise InputError(f"cannot read {given}: {error}") from error
    if not found:
        raise InputError(f"{given}: no file matches this pattern")
    return found


def _file(path: str) -> Source:
    if not is_remote(path) and not stat.S_ISREG(Path(path).stat().st_mode):
        raise InputError(f"{path} is a stream, and it is read more than once: save it in a file first")
    kind = file_kind(path)
    if kind is None:
        raise InputError(
            f"{path} is of no kind that can be read: {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSED)}"
        )
    return Source(path, kind)


def _in_folder(folder: Path) -> list[Source]:
    """A run's journal; else the files in a folder, and the runs right in it."""
    of_a_run = folder.resolve().name == JOURNALS and not (folder / MANIFEST).is_file()
    run = folder.resolve().parent if of_a_run else folder
    manifest = read_manifest(run)
    if manifest is not None:
        return [Source(str(run / manifest.journal), "lines", run)]
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_data(path.name)]
    runs = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    if not files and not runs:
        raise InputError(f"{folder} holds neither a run ({MANIFEST}) nor a file that ends in {', '.join(SUFFIXES)}")
    return [*(_file(str(path)) for path in files), *(source for run in runs for source in _in_folder(run))]


def _is_data(name: str) -> bool:
    return kind_by_name(name) is not None and not name.startswith(".") and not any(part in name for part in ASIDE)


def _journal(path: Path) -> Source | None:
    """The journal of a run by its own path: as the run's."""
    run = path.resolve().parent.parent
    if path.suffix != ".jsonl" or path.resolve().parent.name != JOURNALS or not (run / MANIFEST).is_file():
        return None
    return Source(str(path), "lines", run)


def _parquet_rows(path: str) -> Iterator[RawRow | BadRow]:
    with open_parquet(path) as file:
        for number, row in read_batches(file.iter_batches(batch_size=BATCH_ROWS)):
            yield row if isinstance(row, BadRow) else RawRow(number, _as_json(row))


def _as_json(row: dict[str, Any]) -> bytes:
    """A Parquet row as JSON; structured fields that a column holds as JSON text become what they say."""
    opened = {key: _opened(value) if key in _STRUCTURED else value for key, value in row.items()}
    return orjson.dumps(opened, default=str, option=orjson.OPT_NON_STR_KEYS)


def _opened(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return orjson.Fragment(bytes(_json_text.decode(value)))
    except (msgspec.DecodeError, RecursionError):
        return value  # it only looks like JSON: "[Errno 111] Connection refused"
