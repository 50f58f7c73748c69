"""Rows made ready once: tokens and labels in Arrow files that every process of a run maps into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from rollmill.errors import InputError
from rollmill.exports.splitting import Split
from rollmill.files.atomic import atomic_write, atomic_write_json
from rollmill.files.rows import BadRow, dump_line
from rollmill.jobs.training.masks import OVER_MAX_LENGTH, Masks, Tokens
from rollmill.jobs.training.packing import pack_rows
from rollmill.jobs.training.rows import TrainingRow, read_training_rows
from rollmill.jobs.training.turns import RefusedError

TRAIN = "train"
VALIDATION = "validation"
SUMMARY = "rows.json"
DROPPED = "dropped.jsonl"
UNUSABLE = "unusable"
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
_BATCH = 256


class SplitUse(BaseModel):
    """What is used of one side."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    problems: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    longest: int = 0


class PreparedRows(BaseModel):
    """What became of all rows. `dropped` counts those left out, by reason."""

    model_config = ConfigDict(frozen=True)

    train: SplitUse
    validation: SplitUse
    dropped: dict[str, int]
    model_length: int | None = None
    """The tokens that the model takes, where they are fewer than `max_length`: no row is longer."""


def rows_file(folder: Path, side: str) -> Path:
    """Where the tokens of one side are."""
    return folder / f"{side}.arrow"


def read_prepared(folder: Path) -> PreparedRows | None:
    """What an earlier process made ready; None where it did not finish."""
    path = folder / SUMMARY
    return PreparedRows.model_validate_json(path.read_bytes()) if path.exists() else None


def prepare_rows(
    folder: Path,
    masks: Masks,
    train: Sequence[str],
    validation: Sequence[str],
    *,
    max_length: int,
    model_length: int | None = None,
    split: Split | None = None,
    packing: bool = False,
) -> PreparedRows:
    """Writes into the folder: `train.arrow`, `validation.arrow`, `rows.json`, and to `dropped.jsonl` the rows left out.

    With a split, problems of `train` are set aside for validation; with `packing`, rows of `train` share packs of at
    most `max_length` tokens, whose column `seq_lengths` says where each begins. Rows of more than `max_length` tokens,
    or than the `model_length` that the model takes, are left out. Raises `InputError` where no row of a side can be
    used, and where a problem is on both sides.
    """
    writing = _Writing(folder, masks, max_length, model_length)
    with ExitStack() as stack:
        writing.open(stack, [TRAIN, VALIDATION] if validation or split else [TRAIN])
        aside = _aside(train, split) if split else frozenset()
        for path in train:
            writing.take(path, lambda row: VALIDATION if row.problem in aside else TRAIN)
        for path in validation:
            writing.take(path, lambda _: VALIDATION)
        writing.check(validation_named=bool(validation))
    if packing:
        _pack(rows_file(folder, TRAIN), max_length)
    prepared = writing.prepared()
    atomic_write_json(folder / SUMMARY, prepared.model_dump())
    return prepared


def _pack(path: Path, most: int) -> None:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all()
    lengths = pc.list_value_length(rows["input_ids"]).to_pylist()
    packs = pack_rows(lengths, most)
    schema = _SCHEMA.append(pa.field("seq_lengths", pa.list_(pa.int32())))
    with atomic_write(path) as packed, pa.ipc.new_stream(packed, schema) as writer:
        for begin in range(0, len(packs), _BATCH):
            made = [_packed(rows.take(pack).to_pylist()) for pack in packs[begin : begin + _BATCH]]
            writer.write_batch(pa.RecordBatch.from_pylist(made, schema=schema))


def _packed(rows: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    joined = {name: [value for row in rows for value in row[name]] for name in _SCHEMA.names}
    return {**joined, "seq_lengths": [len(row["input_ids"]) for row in rows]}


def _aside(train: Sequence[str], split: Split) -> frozenset[str]:
    rows = (row for path in train for _, row in read_training_rows(path))
    return split.validation({row.problem for row in rows if isinstance(row, TrainingRow)})


class _File:
    """The tokens of one side as they are written."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        file: BinaryIO = stack.enter_context(atomic_write(path))
        self._writer = stack.enter_context(pa.ipc.new_stream(file, _SCHEMA))
        self._batch: list[Tokens] = []
        stack.callback(self.flush)

    def add(self, tokens: Tokens) -> None:
        self._batch.append(tokens)
        if len(self._batch) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Called before the stream is closed: an `ExitStack` leaves last what it entered first."""
        if self._batch:
            columns = [
                pa.array([getattr(tokens, name) for tokens in self._batch], type=_SCHEMA.field(name).type)
                for name in _SCHEMA.names
            ]
            self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            self._batch = []


class _Reason(NamedTuple):
    reason: str
    detail: str


class _Writing:
    def __init__(self, folder: Path, masks: Masks, max_length: int, model_length: int | None) -> None:
        self._folder = folder
        self._masks = masks
        self._max_length = max_length
        self._model_length = model_length if model_length is not None and model_length < max_length else None
        self._files: dict[str, _File] = {}
        self._totals: dict[str, Counter[str]] = {TRAIN: Counter(), VALIDATION: Counter()}
        self._problems: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set()}
        self._dropped: dict[str, Counter[str]] = {TRAIN: Counter(), VALIDATION: Counter()}
        self._first: dict[str, str] = {}

    def open(self, stack: ExitStack, sides: Sequence[str]) -> None:
        self._left_out = stack.enter_context(atomic_write(self._folder / DROPPED))
        self._files = {side: _File(stack, rows_file(self._folder, side)) for side in sides}

    def take(self, path: str, side_of: Any) -> None:
        """All rows of one file."""
        for number, row in read_training_rows(path):
            side = TRAIN if isinstance(row, BadRow) else side_of(row)
            made = self._encode(row)
            if isinstance(made, _Reason):
                self._drop(side, made, {"file": path, "line": number})
                continue
            assert isinstance(row, TrainingRow)
            self._files[side].add(made)
            self._problems[side].add(row.problem)
            total = self._totals[side]
            total.update(rows=1, tokens=len(made.input_ids), learnt_tokens=made.learnt)
            total["longest"] = max(total["longest"], len(made.input_ids))

    def _encode(self, row: TrainingRow | BadRow) -> Tokens | _Reason:
        if isinstance(row, BadRow):
            return _Reason(UNUSABLE, f"{row.field}: {row.reason}" if row.field else row.reason)
        try:
            return self._masks.encode(row, self._max_length, self._model_length)
        except RefusedError as error:
            return _Reason(error.reason, str(error))

    def _drop(self, side: str, why: _Reason, place: dict[str, Any]) -> None:
        self._dropped[side][why.reason] += 1
        self._first.setdefault(why.reason, f"{place['file']}, line {place['line']}: {why.detail}")
        self._left_out.write(dump_line({**place, "reason": why.reason, "detail": why.detail}))

    def check(self, *, validation_named: bool) -> None:
        """Raises `InputError` where a side has no row, or both have one problem."""
        for side in [TRAIN, VALIDATION] if validation_named else [TRAIN]:
            if not self._totals[side]["rows"]:
                raise InputError(self._nothing_left(side))
        both = self._problems[TRAIN] & self._problems[VALIDATION]
        if both:
            raise InputError(
                f"{len(both)} problems are in both the training and the validation data, such as {min(both)[:80]!r}: "
                "evaluate on problems that are not trained on"
            )

    def _nothing_left(self, side: str) -> str:
        dropped = self._dropped[side]
        if not dropped:
            return f"the {side} data has no rows: check --{side}_data"
        if set(dropped) == {OVER_MAX_LENGTH}:
            many = f"all {dropped.total()} rows" if dropped.total() > 1 else "the only row"
            have = "have" if dropped.total() > 1 else "has"
            return f"{many} of the {side} data {have} more than --max_length {self._max_length} tokens: raise it"
        told = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        return f"no row of the {side} data can be used ({told}); the first: {self._first[dropped.most_common(1)[0][0]]}"

    def prepared(self) -> PreparedRows:
        sides = {
            side: SplitUse(problems=len(self._problems[side]), **self._totals[side]) for side in (TRAIN, VALIDATION)
        }
        dropped = dict(self._dropped[TRAIN] + self._dropped[VALIDATION])
        return PreparedRows(**sides, dropped=dropped, model_length=self._model_length)
