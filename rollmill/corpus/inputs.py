"""Inputs: what a user names (files, folders, patterns, run directories, URLs) as the files to read."""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import msgspec
import orjson

from rollmill.corpus.row_reader import NO_NAMES, FieldNames, RowReader, find_reader, is_message, parse_row
from rollmill.errors import InputError
from rollmill.files.arrow_json import is_json_of_python, json_columns
from rollmill.files.arrow_rows import BATCH_ROWS, read_batches
from rollmill.files.formats import COMPRESSED, SUFFIXES, Kind, content_kind, kind_by_name
from rollmill.files.io import is_compressed
from rollmill.files.names import MANIFEST
from rollmill.files.parquet import open_parquet
from rollmill.files.raw_row import RawRow
from rollmill.files.remote import is_remote
from rollmill.files.rows import BadRow, Row, raw_json_array, raw_json_documents, raw_json_lines
from rollmill.files.zipped_rows import raw_zipped_rows
from rollmill.generation.manifest import read_manifest
from rollmill.generation.run import JOURNALS

_STRUCTURED = frozenset({
    "messages", "trajectory", "verdict", "evaluation_info", "metadata", "usage", "error", "tools",
    "chat_template_kwargs",
})  # fmt: skip
_TEXTS = frozenset({
    "messages", "trajectory", "prompt", "completion", "reasoning_content", "reasoning", "thinking", "tool_calls",
})  # fmt: skip
"""Columns with texts that models read or wrote, which may look like JSON without being it."""
_NUMBERS = frozenset({"reward", "speedup"})
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")
_PATTERN = frozenset("*?[")
ASIDE = (".dropped.", ".quarantine.", ".index.parquet")
"""Parts of the names of files with dropped or bad rows, and of journals' indexes: folders and patterns skip these
files, unless the pattern names the part."""
_OTHER_SUFFIXES = (".traj", ".eval")
"""Suffixes of files of SWE-agent and inspect_ai, which are read from folders, too."""
_TRAJECTORIES = ("agent/trajectory.json", "*/agent/trajectory.json", "*/*.traj.json", "*/*.traj")
"""Trajectories in folders of Harbor (a trial, or a folder of trials), mini-swe-agent and SWE-agent."""
_ZIPPED_FOLDER = "samples/"
"""The folder inside of inspect_ai's zipped logs that holds the rollouts."""
_HTTP = ("http://", "https://")
_FILE = "file://"
_json_text = msgspec.json.Decoder(msgspec.Raw)


class Source(NamedTuple):
    """One file of records.

    `run` is the run directory whose journal it is, `reader` converts rows of other producers into records.
    """

    path: str
    kind: Kind
    run: Path | None = None
    reader: RowReader | None = None

    @property
    def is_seekable(self) -> bool:
        """Return whether a record can be read by its offset, without reading the file from its beginning."""
        is_plain = self.kind == "lines" and self.reader is None
        return is_plain and not is_remote(self.path) and not is_compressed(self.path)

    @property
    def folder(self) -> Path | None:
        """The local folder that paths in its records are relative to; None for a remote file."""
        return None if is_remote(self.path) else self.run or Path(self.path).resolve().parent

    def raw_rows(self, rest: Row | None = None) -> Iterator[RawRow | BadRow]:
        """Yield the records' bytes, in order, or the reason for a row that has none.

        The fields of a JSON document beside its rows are stored in `rest`.
        """
        rows = self._stored_rows(rest)
        return rows if self.reader is None else self.reader.rows(rows)

    def _stored_rows(self, rest: Row | None = None) -> Iterator[RawRow | BadRow]:
        if self.kind == "lines":
            return raw_json_lines(self.path)
        if self.kind == "documents":
            return raw_json_documents(self.path)
        if self.kind == "zip":
            return raw_zipped_rows(self.path, _ZIPPED_FOLDER)
        return raw_json_array(self.path, rest) if self.kind == "document" else _parquet_rows(self.path)

    def first_row(self) -> RawRow | BadRow | None:
        """Return the first row as it is stored; None where there is none. Raises `InputError`."""
        return next(self._stored_rows(), None)


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Return the files that the inputs name, in their order.

    Raises `InputError` where an input names no file, or a file is named twice.
    """
    try:
        sources = [source for name in inputs for source in _sources(name.removeprefix(_FILE))]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    seen: set[str] = set()
    for source in sources:
        resolved = source.path if is_remote(source.path) else str(Path(source.path).resolve())
        if resolved in seen:
            raise InputError(f"{source.path} is given twice: its rollouts would count twice")
        seen.add(resolved)
    return sources


def _sources(name: str) -> list[Source]:
    if not name:
        raise InputError("an input is empty: name a file, a folder, a pattern or a URL")
    if is_remote(name):
        return [_file(path) for path in _remote(name)]
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [_journal(path) or _file(str(path))]
    if not _PATTERN.isdisjoint(name):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute patterns, with **
        if matches := _without_aside_files(matches, name):
            return [source for match in matches for source in _sources(match)]
        raise InputError(f"{name}: no file matches this pattern")
    raise InputError(f"{name}: there is no such file or folder")


def _without_aside_files(paths: list[str], pattern: str) -> list[str]:
    """Return the paths without files of `ASIDE`, except those whose part the pattern names."""
    parts = [part for part in ASIDE if part not in pattern]
    return [path for path in paths if not any(part in path.rsplit("/", 1)[-1] for part in parts)]


def _remote(name: str) -> list[str]:
    if _PATTERN.isdisjoint(name) or name.startswith(_HTTP):  # where a question mark begins a query
        return [name]
    try:
        system, pattern = fsspec.core.url_to_fs(name)
        matches = [system.unstrip_protocol(path) for path in _without_aside_files(sorted(system.glob(pattern)), name)]
    except Exception as error:  # every file system raises types of its own
        raise InputError(f"cannot read {name}: {error}") from error
    if not matches:
        raise InputError(f"{name}: no file matches this pattern")
    return matches


def _file(path: str) -> Source:
    if not is_remote(path) and not stat.S_ISREG(Path(path).stat().st_mode):
        raise InputError(f"{path} is a stream, and it is read more than once: save it in a file first")
    kind = kind_by_name(path)
    if kind not in ("lines", "parquet"):
        kind = content_kind(path, kind)
    if kind is None:
        raise InputError(
            f"{path} is of no kind that can be read: {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSED)}, and "
            "JSON and logs of inspect_ai under any name"
        )
    return Source(path, kind)


def identify(source: Source, fields: FieldNames = NO_NAMES) -> Source:
    """Return a source with its kind, and the reader of another producer's rows, found from its content.

    A run's own journal needs neither. Raises `InputError` where the source cannot be read, or its rows have no known
    form.

    Args:
        source: as `find_sources` returns it.
        fields: names of fields that the user gave.
    """
    if source.run:
        return source
    if source.kind == "lines":
        source = source._replace(kind=content_kind(source.path, source.kind) or source.kind)
    first = parse_row(source.first_row())
    # A document whose rows are messages is one conversation: the document is the row.
    if source.kind == "document" and is_message(first):
        source = source._replace(kind="documents")
        first = parse_row(source.first_row())
    return source._replace(reader=find_reader(source.path, first, fields))


def _in_folder(folder: Path) -> list[Source]:
    """Return the journal of a run; of another folder trajectories of other tools, or its files and the runs in it."""
    is_journals = folder.resolve().name == JOURNALS and not (folder / MANIFEST).is_file()
    run = folder.resolve().parent if is_journals else folder
    manifest = read_manifest(run)
    if manifest is not None:
        return [Source(str(run / manifest.journal), "lines", run)]
    # Other files of such a folder, such as results or configurations, are about all trajectories: they are no rows.
    if trajectories := sorted({path for pattern in _TRAJECTORIES for path in folder.glob(pattern)}):
        return [_file(str(path)) for path in trajectories]
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_data(path.name)]
    runs = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    if not files and not runs:
        raise InputError(f"{folder} holds neither a run ({MANIFEST}) nor a file that ends in {', '.join(SUFFIXES)}")
    return [*(_file(str(path)) for path in files), *(source for run in runs for source in _in_folder(run))]


def _is_data(name: str) -> bool:
    known = kind_by_name(name) is not None or name.endswith(_OTHER_SUFFIXES)
    return known and not name.startswith(".") and not any(part in name for part in ASIDE)


def _journal(path: Path) -> Source | None:
    """Return the journal of a run as the run's source; None for a path that is no journal."""
    run = path.resolve().parent.parent
    if path.suffix != ".jsonl" or path.resolve().parent.name != JOURNALS or not (run / MANIFEST).is_file():
        return None
    return Source(str(path), "lines", run)


def _parquet_rows(path: str) -> Iterator[RawRow | BadRow]:
    with open_parquet(path) as file:
        columns = json_columns(file.schema_arrow, _TEXTS)
        for number, row in read_batches(file.iter_batches(batch_size=BATCH_ROWS), columns):
            yield row if isinstance(row, BadRow) else RawRow(number, _as_json(row))


def _as_json(row: dict[str, Any]) -> bytes:
    """Return a Parquet row as JSON; a structured field that its column holds as JSON text becomes the value."""
    parsed = {key: _parse_json_text(value) if key in _STRUCTURED else value for key, value in row.items()}
    for key in _NUMBERS.intersection(row):  # a column of text holds numbers as text
        if isinstance(row[key], str) and _NUMBER.fullmatch(row[key]):
            parsed[key] = float(row[key])
    return orjson.dumps(parsed, default=str, option=orjson.OPT_NON_STR_KEYS)


def _parse_json_text(value: Any) -> Any:
    if isinstance(value, list):  # of messages or tools, each as JSON text
        return [_parse_json_text(item) for item in value]
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return orjson.Fragment(bytes(_json_text.decode(value)))
    except (msgspec.DecodeError, RecursionError):
        # NaN is repaired when the row is read, as in JSON Lines; other text only looks like JSON: "[Errno 111]
        # refused".
        return orjson.Fragment(value) if is_json_of_python(value) else value
