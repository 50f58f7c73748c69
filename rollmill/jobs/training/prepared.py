"""Tokenises the rows of a run once: tokens and labels in Arrow files that every process maps into memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Sequence
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
from rollmill.jobs.training.chat_template import RefusedError
from rollmill.jobs.training.masks import OVER_MAX_LENGTH, EncodedRow, Masks, Tokens
from rollmill.jobs.training.recorded_rows import RecordedRows
from rollmill.jobs.training.rows import MARKED, TrainingRow, read_training_rows

TRAIN = "train"
VALIDATION = "validation"
SUMMARY = "rows.json"
DROPPED = "dropped.jsonl"
UNUSABLE = "unusable"
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
_BATCH = 256


class SplitUse(BaseModel):
    """Counts of the rows that are used of one side, training or validation data."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    problems: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    longest: int = 0
    texts: int = 0
    """More than `rows` where a template writes earlier turns differently once others follow."""


class PreparedRows(BaseModel):
    """Counts of all rows: used, and left out (`dropped`, by reason)."""

    model_config = ConfigDict(frozen=True)

    train: SplitUse
    validation: SplitUse
    dropped: dict[str, int]
    turns_left_out: dict[str, int] = {}
    """Turns left out of rows that are used, by reason."""
    ends: dict[str, int] = {}
    """The end-of-turn tokens that carry the loss, and the number of turns of each."""
    turns_without_end: int = 0
    recorded_rows: int = 0
    """Number of rows that are trained on the ids that were sampled."""
    encoded_anew: dict[str, int] = {}
    """Number of rows whose text is encoded, to ids that may differ from those sampled, by the reason for it."""
    stops_added: list[str] = []
    """Those of `ends` at which the base model does not stop."""
    model_length: int | None = None
    """Tokens that the model takes, where they are fewer than `max_length`: no row is longer."""


def rows_file(folder: Path, side: str) -> Path:
    """Return the Arrow file of one side."""
    return folder / f"{side}.arrow"


def read_prepared(folder: Path) -> PreparedRows | None:
    """Return the counts of an earlier process that prepared all rows; None where it did not finish."""
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
    allow_no_end: bool = False,
    add_stops: Callable[[Sequence[str]], None] | None = None,
    tokenizer_hash: str | None = None,
) -> PreparedRows:
    """Write into the folder: `train.arrow`, `validation.arrow`, `rows.json`, and to `dropped.jsonl` the rows left out.

    A row becomes one training text, or several where the chat template writes earlier turns differently once others
    follow. Raises `InputError` where no row of a side can be used, where a problem is on both sides, and, unless
    `allow_no_end`, where no end-of-turn token carries the loss.

    Args:
        folder: An existing folder of the run.
        masks: The tokenizer of the model that is trained.
        train: Files of training rows.
        validation: Files of rows to evaluate on.
        max_length: Texts of more tokens are left out.
        model_length: Tokens that the model takes: longer texts are left out, too. None for no limit.
        split: Share of the problems of `train` that is set aside for validation; None for none.
        packing: Whether texts of `train` share packs of at most `max_length` tokens; the column `seq_lengths` has the
            length of each text of a pack.
        allow_no_end: Whether to train although no end-of-turn token carries the loss.
        add_stops: Called with the end-of-turn tokens that carry the loss, and at which the base does not stop.
        tokenizer_hash: Hash of the model's tokenizer: rows with ids recorded by the same one are trained on these.
    """
    writer = _RowWriter(folder, masks, max_length, model_length, tokenizer_hash)
    with ExitStack() as stack:
        # Files are closed before rows are packed, and are incomplete, hence absent, where a check raises.
        writer.open(stack, [TRAIN, VALIDATION] if validation or split else [TRAIN])
        aside = _validation_problems(train, split) if split else frozenset()
        for path in train:
            writer.add_file(path, lambda row: VALIDATION if row.problem in aside else TRAIN)
        for path in validation:
            writer.add_file(path, lambda _: VALIDATION)
        writer.check(validation_named=bool(validation), allow_no_end=allow_no_end)
    if packing:
        _pack(rows_file(folder, TRAIN), max_length)
    prepared = writer.prepared()
    if prepared.stops_added and add_stops is not None:
        add_stops(prepared.stops_added)
    # Last: this file tells that all others are complete.
    atomic_write_json(folder / SUMMARY, prepared.model_dump())
    return prepared


def pack_rows(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return packs, as lists of row numbers, of at most `most` tokens: best fit decreasing; each row once, uncut.

    `lengths` are tokens of each row. Raises `ValueError` for a row that is longer than a pack.
    """
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []
    """(tokens left, index of the pack), ascending."""
    # Longest first: short rows fill the gaps that long ones leave. By row number where lengths are equal, so that the
    # packs are the same in every run.
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        length = lengths[row]
        if length > most:
            raise ValueError(f"row {row} has {length} tokens, more than {most}")
        index = bisect_left(room, (length, -1))  # the fullest pack with so much room
        if index == len(room):
            packs.append([row])
            insort(room, (most - length, len(packs) - 1))
        else:
            free, pack = room.pop(index)
            packs[pack].append(row)
            insort(room, (free - length, pack))
    return packs


def _pack(path: Path, most: int) -> None:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all()
    lengths = pc.list_value_length(rows["input_ids"]).to_pylist()
    packs = pack_rows(lengths, most)
    schema = _SCHEMA.append(pa.field("seq_lengths", pa.list_(pa.int32())))
    # Written over the unpacked rows, which are still mapped: replacing a file does not change what is mapped.
    with atomic_write(path) as packed, pa.ipc.new_stream(packed, schema) as writer:
        for begin in range(0, len(packs), _BATCH):
            batch = [_join_rows(rows.take(pack).to_pylist()) for pack in packs[begin : begin + _BATCH]]
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


def _join_rows(rows: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    joined = {name: [value for row in rows for value in row[name]] for name in _SCHEMA.names}
    return {**joined, "seq_lengths": [len(row["input_ids"]) for row in rows]}


def _validation_problems(train: Sequence[str], split: Split) -> frozenset[str]:
    rows = (row for path in train for _, row in read_training_rows(path))
    return split.validation({row.problem for row in rows if isinstance(row, TrainingRow)})


class _ArrowWriter:
    """Writes the tokens of one side to its Arrow file, in batches."""

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
        """Write what is left of the batch.

        Called by the `ExitStack` before it closes the stream: callbacks run in reverse order of their registration.
        """
        if self._batch:
            columns = [
                pa.array([getattr(tokens, name) for tokens in self._batch], type=_SCHEMA.field(name).type)
                for name in _SCHEMA.names
            ]
            self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            self._batch = []


class _Reason(NamedTuple):
    """Reason for which a row is left out: a word for counting, and a text."""

    reason: str
    detail: str


class _RowWriter:
    """Encodes rows, writes them to their side's file, and counts them. Arguments as in `prepare_rows`.

    Args:
        folder: The run's folder.
        masks: The model's tokenizer.
        max_length: Most tokens of a text, by the user.
        model_length: Most tokens of a text, by the model; None for no limit.
        tokenizer_hash: Hash of the model's tokenizer.
    """

    def __init__(
        self, folder: Path, masks: Masks, max_length: int, model_length: int | None, tokenizer_hash: str | None
    ) -> None:
        self._folder = folder
        self._masks = masks
        self._max_length = max_length
        self._model_length = model_length if model_length is not None and model_length < max_length else None
        self._files: dict[str, _ArrowWriter] = {}
        self._totals: dict[str, Counter[str]] = {TRAIN: Counter(), VALIDATION: Counter()}
        self._problems: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set()}
        self._dropped: dict[str, Counter[str]] = {TRAIN: Counter(), VALIDATION: Counter()}
        self._first: dict[str, str] = {}
        self._turns_left_out: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._endless = 0
        self._tokenizer_hash = tokenizer_hash
        self._recorded_rows = 0
        self._encoded_anew: Counter[str] = Counter()

    def open(self, stack: ExitStack, sides: Sequence[str]) -> None:
        self._left_out = stack.enter_context(atomic_write(self._folder / DROPPED))
        self._files = {side: _ArrowWriter(stack, rows_file(self._folder, side)) for side in sides}

    def add_file(self, path: str, side_of: Callable[[TrainingRow], str]) -> None:
        """Encode and write all rows of one file; `side_of` tells which side a row belongs to."""
        recorded = RecordedRows(path, self._masks, self._tokenizer_hash)
        for number, row in read_training_rows(path):
            side = TRAIN if isinstance(row, BadRow) else side_of(row)
            encoded = self._encode(row, recorded)
            if isinstance(encoded, _Reason):
                self._drop(side, encoded, {"file": path, "line": number})
                continue
            assert isinstance(row, TrainingRow)
            self._problems[side].add(row.problem)
            self._totals[side]["rows"] += 1
            self._add(side, encoded)
            for error in encoded.refused:
                self._leave_turn_out(error, {"file": path, "line": number})
        recorded.close()
        self._recorded_rows += recorded.used
        self._encoded_anew += recorded.encoded_anew

    def _add(self, side: str, encoded: EncodedRow) -> None:
        total = self._totals[side]
        for tokens in encoded.texts:
            self._files[side].add(tokens)
            total.update(texts=1, tokens=len(tokens.input_ids), learnt_tokens=tokens.trained)
            total["longest"] = max(total["longest"], len(tokens.input_ids))
        if side == TRAIN:  # validation rows train nothing
            self._ends += encoded.ends
            self._endless += encoded.endless

    def _leave_turn_out(self, error: RefusedError, location: dict[str, Any]) -> None:
        self._turns_left_out[error.reason] += 1
        self._left_out.write(dump_line({**location, "turn": True, "reason": error.reason, "detail": str(error)}))

    def _encode(self, row: TrainingRow | BadRow, recorded: RecordedRows) -> EncodedRow | _Reason:
        if isinstance(row, BadRow):
            if row.field == MARKED:
                return _Reason(MARKED, row.reason)
            return _Reason(UNUSABLE, f"{row.field}: {row.reason}" if row.field else row.reason)
        try:
            encoded = recorded.encode(row, self._max_length, self._model_length)
            return encoded or self._masks.encode_all(row, self._max_length, self._model_length)
        except RefusedError as error:
            return _Reason(error.reason, str(error))

    def _drop(self, side: str, reason: _Reason, location: dict[str, Any]) -> None:
        self._dropped[side][reason.reason] += 1
        self._first.setdefault(reason.reason, f"{location['file']}, line {location['line']}: {reason.detail}")
        self._left_out.write(dump_line({**location, "reason": reason.reason, "detail": reason.detail}))

    def check(self, *, validation_named: bool, allow_no_end: bool) -> None:
        """Raise `InputError` where a side has no row, both share a problem, or no end-of-turn token is trained on."""
        for side in [TRAIN, VALIDATION] if validation_named else [TRAIN]:
            if not self._totals[side]["rows"]:
                raise InputError(self._no_rows_message(side))
        both = self._problems[TRAIN] & self._problems[VALIDATION]
        if both:
            raise InputError(
                f"{len(both)} problems are in both the training and the validation data, such as {min(both)[:80]!r}: "
                "evaluate on problems that are not trained on"
            )
        if not self._ends and not allow_no_end:
            raise InputError(
                f"none of the {self._endless} turns to train on ends with an end-of-turn token, so that the model "
                "would learn never to stop: use a chat template that writes one, or rows that are not all truncated; "
                "--allow_no_end trains all the same"
            )

    def _no_rows_message(self, side: str) -> str:
        dropped = self._dropped[side]
        if not dropped:
            return f"the {side} data has no rows: check --{side}_data"
        if set(dropped) == {OVER_MAX_LENGTH}:
            subject, verb = (f"all {dropped.total()} rows", "have") if dropped.total() > 1 else ("the only row", "has")
            return f"{subject} of the {side} data {verb} more than --max_length {self._max_length} tokens: raise it"
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        return (
            f"no row of the {side} data can be used ({reasons}); the first: {self._first[dropped.most_common(1)[0][0]]}"
        )

    def prepared(self) -> PreparedRows:
        """Return the counts of all rows."""
        sides = {
            side: SplitUse(problems=len(self._problems[side]), **self._totals[side]) for side in (TRAIN, VALIDATION)
        }
        dropped = dict(self._dropped[TRAIN] + self._dropped[VALIDATION])
        return PreparedRows(
            **sides,
            dropped=dropped,
            turns_left_out=dict(self._turns_left_out),
            ends=dict(self._ends),
            turns_without_end=self._endless,
            recorded_rows=self._recorded_rows,
            encoded_anew=dict(self._encoded_anew),
            stops_added=sorted(set(self._ends) - self._masks.stops),
            model_length=self._model_length,
        )
