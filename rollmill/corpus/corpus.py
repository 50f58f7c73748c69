"""The corpus: rollouts of one or many files, as a table of scalars and a way back to each record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from rollmill.corpus.inputs import Source, find_sources, identify
from rollmill.corpus.journal_index import Indexed, JournalState, read_index, write_index
from rollmill.corpus.json_repair import repair
from rollmill.corpus.record import UNREADABLE_ERRORS, decode_record
from rollmill.corpus.row_reader import NO_NAMES, FieldNames
from rollmill.corpus.scan import Scan
from rollmill.corpus.table import SCHEMA
from rollmill.errors import InputError
from rollmill.files.remote import is_remote
from rollmill.files.rows import BadRow, Row, raw_json_lines
from rollmill.generation.manifest import read_manifest
from rollmill.generation.run import PROBLEMS
from rollmill.problems.loading import read_instance_ids

OnBadRow = Callable[[Source, BadRow], None]


class _State(NamedTuple):
    """The identity of a file when it was read: device, inode, size, time of the last change."""

    device: int
    inode: int
    size: int
    changed_ns: int


class _SourceRows(NamedTuple):
    """The result of reading one source: its part of the table, the number of bad rows, the repaired records."""

    table: pl.DataFrame
    bad: int
    repaired: set[int]
    metadata: Row
    state: _State | None


class Corpus:
    """The rollouts that were read, as a table, and access to their records. Made by `read_corpus`.

    Args:
        files: the sources, in the order of the inputs.
        read: what was read from each.
        hashed: whether every rollout with messages has its `completion_hash`.
    """

    def __init__(self, files: Sequence[Source], read: Sequence[_SourceRows], *, hashed: bool = True) -> None:
        self.files = list(files)
        self.hashed = hashed
        """True if every rollout with messages has its `completion_hash`."""
        self.sources = [source.path for source in files]
        """Paths and URLs; the table's `source` counts them."""
        self.table = _join_tables([part.table for part in read])
        self.metadata = _common_metadata([part.metadata for part in read])
        """Metadata that all inputs have in common: of a document its `metadata`, of a run `model_name` and
        `identity`."""
        self.quarantined = sum(part.bad for part in read)
        """Rows that could not be used."""
        self.repaired = sum(len(part.repaired) for part in read)
        """Number of records with values that JSON in UTF-8 cannot have: NaN and Infinity became null, lone surrogates
        `?`."""
        self._repaired = [part.repaired for part in read]
        self._states = [part.state for part in read]

    @property
    def name(self) -> str:
        """A short title: the name of the run or file."""
        names = [source.run.resolve().name if source.run else source.path.rsplit("/", 1)[-1] for source in self.files]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    def image_root(self, source: int) -> Path | None:
        """Return the local folder that image paths in a source's records are relative to; None for a remote file."""
        return self.files[source].folder

    def tokens_root(self, source: int) -> Path | None:
        """Return the local folder that a source's token files are relative to: that of the file, None for a URL."""
        path = self.files[source].path
        return None if is_remote(path) else Path(path).resolve().parent

    def records(self, table: pl.DataFrame) -> Iterator[bytes]:
        """Yield the JSON object of each row of `table`, without a line break. `table` is sorted by `row`.

        Raises `InputError` where a file was changed since the table was made.
        """
        offsets = table.select("source", "number", "offset", "length")
        for part in offsets.partition_by("source", maintain_order=True):
            index = part["source"][0]
            source, repaired = self.files[index], self._repaired[index]
            _check_state(source, self._states[index])
            texts = _read_at_offsets(source, part) if source.is_seekable else _read_in_order(source, part["number"])
            for number, text in zip(part["number"], texts, strict=True):
                yield (repair(text) or text) if number in repaired else text

    def conversations(self, table: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
        """Yield the chat messages of each row of `table`, the completion last; empty where a row has none.

        They have one form, whatever tool wrote them: `role`, `content`, and what there is of `reasoning_content`,
        `tool_calls`, `tool_call_id`, `name`. Raises `InputError` as `records` does, and for contents that are no JSON.
        """
        for source, number, text in zip(table["source"], table["number"], self.records(table), strict=True):
            try:
                yield msgspec.json.decode(msgspec.json.encode(decode_record(text).conversation() or []))
            except UNREADABLE_ERRORS as error:
                raise InputError(
                    f"{self.sources[source]} row {number}: its messages cannot be read: {error}"
                ) from error


def read_corpus(
    inputs: Sequence[str], on_bad_row: OnBadRow | None = None, *, hashed: bool = True, fields: FieldNames = NO_NAMES
) -> Corpus:
    """Read all records of files, folders, patterns, run directories and URLs as a table.

    Of a run's journal the latest row of a rollout counts, in the order of the run's problems. Rows of other producers
    are recognized by their content. Raises `InputError` where an input does not exist or cannot be read, or its rows
    have no known form.

    Args:
        inputs: paths, glob patterns and URLs.
        on_bad_row: called with each row that is no rollout, and its source.
        hashed: without it `completion_hash` may be null: reading takes less time, and duplicates cannot be found.
        fields: names of the fields of files that no run wrote, with dots for nested fields.
    """
    files = [identify(source, fields) for source in find_sources(inputs)]
    return Corpus(files, [_read(source, on_bad_row, hashed=hashed) for source in files], hashed=hashed)


def index_run(directory: Path, num_rollout: int) -> Corpus:
    """Read the first `num_rollout` rollouts of every problem of a run, and write the index of its journal beside it.

    With the index, reading the run again takes hardly any time. Raises `InputError` as `read_corpus` does.
    """
    (source,) = find_sources([str(directory)])
    journal = Path(source.path)
    # Taken before reading, so that a change during it is noticed.
    state, before = _state(source), JournalState.of(journal)
    scan, indexed, bad = _scan_journal(journal, lambda _: None)
    if not bad and not scan.repaired:  # an index cannot tell which records are bad or repaired
        write_index(journal, indexed, before)
    counted = indexed._replace(table=indexed.table.filter(pl.col("sample_id") < num_rollout))
    return Corpus([source], [_read_run(directory, counted, bad, scan.repaired, state)])


def _read(source: Source, on_bad_row: OnBadRow | None, *, hashed: bool) -> _SourceRows:
    def report_bad_row(row: BadRow) -> None:
        if on_bad_row:
            on_bad_row(source, row)

    state = _state(source)
    if source.run:
        scan, indexed, bad = _scan_journal(Path(source.path), report_bad_row)
        return _read_run(source.run, indexed, bad, scan.repaired, state)
    scan, bad = Scan(hashed=hashed), 0
    rest: Row = {}
    is_seekable = source.is_seekable
    for row in source.raw_rows(rest):
        fault = row if isinstance(row, BadRow) else scan.add(*row if is_seekable else row._replace(offset=None))
        if fault:
            bad += 1
            report_bad_row(fault)
    metadata = rest.get("metadata")
    return _SourceRows(scan.table(), bad, scan.repaired, metadata if isinstance(metadata, dict) else {}, state)


def _read_run(directory: Path, indexed: Indexed, bad: int, repaired: set[int], state: _State | None) -> _SourceRows:
    """Return what was read of a run.

    Args:
        directory: the run's.
        indexed: all rows of its journal.
        bad: number of bad rows.
        repaired: numbers of repaired records.
        state: the journal's, before it was read.
    """
    manifest = read_manifest(directory)
    about = {"model_name": directory.resolve().name, "identity": manifest.identity_key} if manifest else {}
    return _SourceRows(_latest_rows(indexed.table, directory), bad, repaired, about, state)


def _common_metadata(metadata: Sequence[Row]) -> Row:
    """Return the fields that are equal in the metadata of all sources."""
    first = metadata[0] if metadata else {}
    return {key: value for key, value in first.items() if all(entry.get(key) == value for entry in metadata)}


def _scan_journal(journal: Path, report_bad_row: Callable[[BadRow], None]) -> tuple[Scan, Indexed, int]:
    """Return all rows of a journal, from its index and the lines appended since; and the number of bad rows."""
    indexed = read_index(journal)
    covered, lines = (indexed.covered, indexed.lines) if indexed else (0, 0)
    scan, bad = Scan(), 0
    for number, text, offset in raw_json_lines(str(journal), offset=covered, lines_before=lines):
        if not text.endswith(b"\n"):
            break  # still being written, or torn by a crash: not yet a row
        fault = scan.add(number, text, offset)
        covered, lines = (offset or 0) + len(text), number
        if fault:
            bad += 1
            report_bad_row(fault)
    table = pl.concat([indexed.table, scan.table()]) if indexed else scan.table()
    return scan, Indexed(table, covered, lines), bad


def _latest_rows(table: pl.DataFrame, run: Path) -> pl.DataFrame:
    """Return the latest row of each rollout, in the order of the run's problems."""
    ids = pl.Series("instance_id", read_instance_ids(run / PROBLEMS), dtype=pl.String)
    order = pl.DataFrame([ids]).with_row_index("position")
    return (
        # A row made again comes later in the journal than the one that it replaces.
        table.unique(["instance_id", "sample_id"], keep="last", maintain_order=True)
        .join(order, on="instance_id", how="left", maintain_order="left")
        .sort("position", "sample_id", nulls_last=True, maintain_order=True)
        .drop("position")
    )


def _join_tables(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return one table of all sources, with the columns that follow from others."""
    if not parts:
        return pl.DataFrame(schema=SCHEMA)
    numbered = [part.with_columns(pl.lit(index, pl.UInt32).alias("source")) for index, part in enumerate(parts)]
    # Rows without a sample id are numbered within their problem of one source.
    unnumbered = pl.int_range(pl.len(), dtype=pl.Int64).over("source", "instance_id")
    # With one answer, its request held the rest of the trajectory; with several, each prompt repeats the turns before.
    one_answer = pl.when(pl.col("turns") == 1).then(pl.col("prompt_tokens") + pl.col("completion_tokens"))
    return (
        pl.concat(numbered)
        .with_row_index("row")
        .with_columns(pl.coalesce("sample_id", unnumbered).alias("sample_id"), one_answer.alias("tokens"))
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )


def _read_at_offsets(source: Source, part: pl.DataFrame) -> Iterator[bytes]:
    """Yield the records at the offsets and lengths, in bytes, of a part of the table."""
    file = os.open(source.path, os.O_RDONLY)
    try:
        for offset, length in zip(part["offset"], part["length"], strict=True):
            text = os.pread(file, length, offset)
            record = text.strip()
            # A cheap check that the file still has a record at this offset: see `_check_state` for grown files.
            if len(text) < length or record[:1] != b"{" or record[-1:] != b"}":
                raise _changed_error(source)
            yield record
    except OSError as error:
        raise InputError(f"cannot read {source.path}: {error.strerror}") from error
    finally:
        os.close(file)


def _read_in_order(source: Source, numbers: pl.Series) -> Iterator[bytes]:
    """Yield the records of these ascending numbers, reading the source from its beginning."""
    remaining = iter(numbers)
    number = next(remaining, None)
    for row in source.raw_rows():
        if row.number == number:
            if isinstance(row, BadRow):
                break
            yield row.text.strip()
            number = next(remaining, None)
        if number is None:
            return
    if number is not None:
        raise _changed_error(source)


def _state(source: Source) -> _State | None:
    """Return the state of a local file; None for a remote or unreadable one."""
    try:
        status = None if is_remote(source.path) else Path(source.path).stat()
    except OSError:
        return None  # the reader raises the error with its message
    return status and _State(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


def _check_state(source: Source, then: _State | None) -> None:
    """Raise `InputError` where a source is another file, or has other contents, except for lines added to its end."""
    now = _state(source)
    # A journal grows while its run goes on: the records that were read keep their offsets.
    grown = source.is_seekable and now and then and now[:2] == then[:2] and now.size > then.size
    if now != then and not grown:
        raise _changed_error(source)


def _changed_error(source: Source) -> InputError:
    return InputError(f"{source.path} was changed while it was read: run the command again")
