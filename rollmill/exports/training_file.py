"""JSON Lines files for trainers: one form of content in all rows, columns that a loader infers, split or not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec
import orjson
import polars as pl

from rollmill.corpus.message import Message
from rollmill.corpus.record import UNREADABLE_ERRORS
from rollmill.errors import InputError
from rollmill.exports import export_result
from rollmill.exports.contents import (
    Form,
    MediaPath,
    NeedsPartsError,
    OutsideImageError,
    UnnamedImageError,
    convert_contents,
    find_columns,
)
from rollmill.exports.export_result import Exported, dropped_table
from rollmill.exports.splitting import TRAIN, VALIDATION, Split, check_disjoint
from rollmill.files.atomic import atomic_write
from rollmill.generation.row_digest import row_digest

FIRST_BYTES = 1 << 20
"""A column that first appears after so many bytes may be missed by a loader, which infers columns from 10 MB."""

MOST_LATE_BYTES = 8 << 20
"""More than this, moved to the head of the file, would not all be in the first megabytes."""

TOKEN_COLUMNS = ("input_ids", "labels")
"""Columns of token ids, which trainers use without tokenizing."""

BATCH = 64
_BLOCK = 4 << 20
_T = TypeVar("_T")


class Sample(NamedTuple):
    """A training row before it is written: the rows of the table that it uses, and its messages by column."""

    rows: tuple[int, ...]
    instance_id: str
    turns: dict[str, list[Message]]
    metadata: dict[str, Any]
    media_path: MediaPath
    extra_columns: dict[str, msgspec.Raw] = {}  # noqa: RUF012  # never changed
    """Columns beside the messages: `tools` and `chat_template_kwargs`, where the rollout has them, and token ids."""


class DroppedRows(NamedTuple):
    """Rows of the table that make no sample, each with the reason."""

    reasons: tuple[tuple[int, str], ...]


class Line(NamedTuple):
    """A sample as JSON, with the columns that a loader infers from it."""

    sample: Sample
    text: bytes
    columns: set[str]
    turns: list[Message]


SampleStream = Iterator[Sample | DroppedRows]
Accept = Callable[[list[Line]], list[str | None]]
"""Maps a batch of lines to the reason that drops each, or None."""


class _RewriteError(Exception):
    """The files have to be written again, with `problems` split again, and those of `train` on the train side."""

    def __init__(self, problems: set[str], train: set[str]) -> None:
        super().__init__()
        self.problems = problems
        self.train = train


class _Tally:
    """The rows written and dropped so far."""

    def __init__(self) -> None:
        self.rows = {TRAIN: 0, VALIDATION: 0}
        self.problems: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set()}
        self.first_problem: dict[str, dict[str, str]] = {TRAIN: {}, VALIDATION: {}}
        """By side, the columns with the first problem that has each."""
        self.used: list[int] = []
        self.dropped: list[tuple[int, str]] = []

    def add(self, side: str, line: Line) -> None:
        """Count a written line."""
        self.rows[side] += 1
        self.problems[side].add(line.sample.instance_id)
        self.used.extend(line.sample.rows)
        for column in line.columns - self.first_problem[side].keys():
            self.first_problem[side][column] = line.sample.instance_id

    def check_sides(self, forced: frozenset[str]) -> None:
        """Raise `_RewriteError` where one side is empty, or validation has a column that train does not have."""
        written = self.problems[TRAIN] | self.problems[VALIDATION]
        new_columns = self.first_problem[VALIDATION].keys() - self.first_problem[TRAIN].keys()
        train = {self.first_problem[VALIDATION][column] for column in new_columns} | forced
        if len(written) > 1 and (not all(self.rows.values()) or train > forced):
            raise _RewriteError(written, train)


class TrainingLines:
    """Writes lines of a file whose columns can be inferred from its beginning.

    `datasets` infers the columns from the first megabytes and refuses a file that has another one later. So a line that
    is the first to have some column, and comes late, is moved to the head of the file; all others keep their order.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.late: list[bytes] = []
        self._file = file
        self._seen: set[str] = set()
        self._bytes = self._late_bytes = 0

    def write(self, line: bytes, columns: set[str]) -> None:
        """Write one line, newline included, with the columns that a loader infers from it."""
        if not columns <= self._seen:
            self._seen |= columns
            if self._bytes > FIRST_BYTES and self._late_bytes < MOST_LATE_BYTES:
                self.late.append(line)
                self._late_bytes += len(line)
                return
        self._file.write(line)
        self._bytes += len(line)


@contextmanager
def open_training_file(path: Path) -> Iterator[TrainingLines]:
    """Open a file that is written atomically when the block ends without an error."""
    with atomic_write(path) as file:
        lines = TrainingLines(file)
        yield lines
        file.flush()
        if lines.late:
            _prepend(Path(file.name), b"".join(lines.late))


def _prepend(path: Path, head: bytes) -> None:
    """Move a file's content back, the last block first, and write the head before it."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            block = file.read(end - begin)
            file.seek(begin + len(head))
            file.write(block)
            end = begin
        file.seek(0)
        file.write(head)


def check_path(path: Path) -> None:
    """Raise `InputError` for a path that does not end in `.jsonl`."""
    if path.suffix != ".jsonl":
        raise InputError(f"cannot write training rows to {path}: give a path that ends in .jsonl")


def validation_path(path: Path) -> Path:
    """Return `<stem>.validation.jsonl` beside `<stem>.jsonl`."""
    return path.with_name(f"{path.stem}.{VALIDATION}{path.suffix}")


def write_samples(
    path: Path,
    make: Callable[[], SampleStream],
    kept: pl.DataFrame,
    *,
    form: export_result.Form,
    split: Split | None,
    accept: Accept | None = None,
    allow_empty: bool = True,
) -> Exported:
    """Write the samples of `make()`; every row of `kept` must be used or dropped in it exactly once.

    All contents are strings, and lists of text parts become strings. Where any row has another kind of part, all
    contents of the file are lists of parts; where any is an image, each row lists the paths, URLs or data URIs of its
    images under `images`. That is known only when such a row comes: then `make()` is called, and the file written,
    again.

    The file is also written again where dropped rows leave one side of the split empty, and where validation has a
    column that train does not have: loaders take the columns of both from train, so the first problem with it moves
    there. Raises `InputError` for a path that does not end in `.jsonl`, and, before any file is replaced, where no row
    is left and not `allow_empty`.

    Args:
        path: the file.
        make: yields the samples, from the beginning each time.
        kept: the rows of the table to export.
        form: name of the export's format, for its result.
        split: the share of problems for validation; None: one file.
        accept: judges batches of lines; None accepts all.
        allow_empty: whether a file without any row is written.
    """
    check_path(path)
    contents: Form = "text"
    expected = set(kept["instance_id"].unique()) if split else set()
    forced: frozenset[str] = frozenset()
    # Each pass either succeeds or learns a constraint for the next: a form with more parts, or problems that have to be
    # on the train side. Both can only grow, so the loop ends.
    while True:
        validation = split.validation(expected, forced) if split else frozenset()
        try:
            tally = _write(path, _lines(make(), contents), validation, accept, forced if split else None, allow_empty)
            break
        except NeedsPartsError as needed:
            contents = needed.form
        except _RewriteError as again:
            expected, forced = again.problems, frozenset(again.train)
    check_disjoint(tally.problems)
    sides = [TRAIN, VALIDATION] if tally.rows[VALIDATION] else [TRAIN]
    if VALIDATION not in sides:
        validation_path(path).unlink(
            missing_ok=True
        )  # of an earlier export: its problems may be on the train side of this one
    return Exported(
        form=form,
        files={side: path if side == TRAIN else validation_path(path) for side in sides},
        rows={side: tally.rows[side] for side in sides},
        problems={side: len(tally.problems[side]) for side in sides},
        kept=len(tally.used),
        dropped=dropped_table(kept, tally.used, tally.dropped),
    )


def _write(
    path: Path,
    items: Iterator[Line | DroppedRows],
    validation: frozenset[str],
    accept: Accept | None,
    forced: frozenset[str] | None,
    allow_empty: bool,
) -> _Tally:
    """Write the files once, and return the counts. Raises `_RewriteError` and `NeedsPartsError`.

    Args:
        path: the file of the train side.
        items: the lines, and rows that make none.
        validation: problems of the validation side.
        accept: judges batches of lines; None accepts all.
        forced: problems that had to move to the train side; None without a split, where sides are not checked.
        allow_empty: whether a file without any row is written.
    """
    tally = _Tally()
    with ExitStack() as stack:
        files = {TRAIN: stack.enter_context(open_training_file(path))}
        for line in _accept_lines(items, tally, accept):
            side = VALIDATION if line.sample.instance_id in validation else TRAIN
            if side not in files:
                files[side] = stack.enter_context(open_training_file(validation_path(path)))
            files[side].write(line.text, line.columns)
            tally.add(side, line)
        if forced is not None:
            tally.check_sides(forced)
        if not tally.used and not allow_empty:
            raise nothing_usable(path, [reason for _, reason in tally.dropped])
    return tally


def _accept_lines(items: Iterator[Line | DroppedRows], tally: _Tally, accept: Accept | None) -> Iterator[Line]:
    """Yield the lines to write, and count the others as dropped. Lines are judged in batches."""
    lines = _count_dropped(items, tally)
    if accept is None:
        yield from lines
        return
    while batch := list(islice(lines, BATCH)):
        for line, reason in zip(batch, accept(batch), strict=True):
            if reason is None:
                yield line
            else:
                tally.dropped.extend((row, reason) for row in line.sample.rows)


def _count_dropped(items: Iterable[Line | DroppedRows], tally: _Tally) -> Iterator[Line]:
    for item in items:
        if isinstance(item, DroppedRows):
            tally.dropped.extend(item.reasons)
        else:
            yield item


class NothingUsableError(InputError):
    """An export would have no row: reports the reasons, and that the file was left unchanged."""

    def __init__(self, path: Path, reasons: dict[str, int]) -> None:
        counted = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()) or "none was left"
        super().__init__(f"no rollout can be written to {path}, which is left as it was: {counted}")
        self.path = path
        self.reasons = reasons


def nothing_usable(path: Path, reasons: Sequence[str]) -> NothingUsableError:
    """Return the error of an export without any row, with its reasons counted."""
    return NothingUsableError(path, dict(Counter(reasons).most_common()))


def or_unreadable(rows: tuple[int, ...], convert: Callable[[], _T]) -> _T | DroppedRows:
    """Return the result of `convert`; drop the rows of the table where their contents cannot be read."""
    try:
        return convert()
    except UNREADABLE_ERRORS:
        return DroppedRows(tuple((row, "unreadable_content") for row in rows))


_encoder = msgspec.json.Encoder(enc_hook=str)


def _lines(samples: SampleStream, form: Form) -> Iterator[Line | DroppedRows]:
    for item in samples:
        yield item if isinstance(item, DroppedRows) else or_unreadable(item.rows, partial(_line, item, form))


def _line(sample: Sample, form: Form) -> Line | DroppedRows:
    try:
        converted = {column: convert_contents(turns, form, sample.media_path) for column, turns in sample.turns.items()}
    except OutsideImageError:
        return DroppedRows(tuple((number, "image_outside") for number in sample.rows))
    except UnnamedImageError:
        return DroppedRows(tuple((number, "image_without_file") for number in sample.rows))
    # The columns of text contents are the same in all rows; only further ones are collected.
    columns = {f"metadata.{key}" for key in sample.metadata}.union(*(part.columns for part in converted.values()))
    # Thousands of token ids need no inference: all are integers.
    for name, value in sample.extra_columns.items():
        if name not in TOKEN_COLUMNS:
            columns |= find_columns(bytes(value), name)
    row: dict[str, Any] = {column: part.turns for column, part in converted.items()} | sample.extra_columns
    row["metadata"] = sample.metadata
    if form == "images":
        row["images"] = [image for part in converted.values() for image in part.images]
        columns |= {"images"} if row["images"] else set()
    text = _encoder.encode(row) + b"\n"
    if "tokens" in sample.metadata and is_unicode(text):
        # The digest lets a trainer verify that the tokens are those of the row's text.
        tokens = sample.metadata["tokens"] | {"digest": row_digest(orjson.loads(text))}
        text = _encoder.encode(row | {"metadata": sample.metadata | {"tokens": tokens}}) + b"\n"
    if not is_unicode(text):
        return DroppedRows(tuple((number, "not_unicode") for number in sample.rows))
    return Line(sample, text, columns, [turn for part in converted.values() for turn in part.turns])


def is_unicode(text: bytes) -> bool:
    """Return whether bytes are UTF-8: contents that were copied without decoding may not be."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
