"""Scan: records become rows of the table; a record that cannot become one is returned with the reason."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson
import polars as pl

from rollmill.corpus.field_values import MISSING, FieldError
from rollmill.corpus.json_repair import has_lone_surrogate, has_unicode_escape, repair
from rollmill.corpus.raw_json import decode_raw_fields
from rollmill.corpus.record import decode_record
from rollmill.corpus.record_facts import compute_facts, compute_typed_facts
from rollmill.corpus.row_reader import missing_id
from rollmill.corpus.table import SCHEMA
from rollmill.corpus.typed_record import TYPED_DECODERS, TypedRecord
from rollmill.files.rows import BadRow, parse_line

COLUMNS = {name: kind for name, kind in SCHEMA.items() if name not in {"row", "source", "tokens"}}
"""The columns that a scan fills; the others follow from them."""
_BATCH = 50_000
"""Rows after which the values so far become a table: Python objects take several times the memory of columns."""
# msgspec's message ends with the path of the value, as in "Expected `str`, got `int` - at `$.messages[0].role`".
_DECODE_ERROR = re.compile(r"^(.*?)(?: - at `\$\.?(\w*)(.*)`)?$", re.DOTALL)


class Scan:
    """Collects the rows of one source, some tens of thousands at a time; see `compute_message_columns` for `hashed`."""

    def __init__(self, *, hashed: bool = True) -> None:
        self._hashed = hashed
        self._decoder, self._other_decoder = TYPED_DECODERS
        self.repaired: set[int] = set()
        """Numbers of records with values that JSON in UTF-8 cannot have: see `json_repair.repair`."""
        # One flat list, row after row: tuples kept by the thousand would keep the garbage collector busy.
        self._values: list[Any] = []
        self._tables: list[pl.DataFrame] = []

    def add(self, number: int, text: bytes, offset: int | None) -> BadRow | None:
        """Add one record; return the bad row where it cannot be one.

        Args:
            number: its 1-based number in the source.
            text: its JSON.
            offset: its first byte in the file, where the file can be read from any byte; else None.
        """
        length = None if offset is None else len(text)
        fault = self._take(number, text, offset, length)
        # NaN and Infinity make a line no JSON: only lines that could not be decoded are searched for them.
        if fault and fault.field is None and (repaired := repair(text)):
            second_fault = self._take(number, repaired, offset, length)
            if not second_fault:
                self.repaired.add(number)
            # If a field of the repaired line is still wrong, that is the reason; the bad row keeps the original line.
            fault = second_fault and (second_fault._replace(raw=fault.raw) if second_fault.field else fault)
        if len(self._values) == _BATCH * len(COLUMNS):
            self._flush()
        return fault

    def table(self) -> pl.DataFrame:
        """Return the rows so far, without `row`, `source` and `tokens`, in the order in which they were added."""
        self._flush()
        self._tables = [pl.concat(self._tables)]
        return self._tables[0]

    def _take(self, number: int, text: bytes, offset: int | None, length: int | None) -> BadRow | None:
        """Append a record's values; return the bad row where it is none.

        Args:
            number: 1-based, in the source.
            text: the record's JSON, or its repaired form.
            offset: in bytes, of the record in the file; None where it cannot be read by that.
            length: in bytes, of the record in the file: a repaired text may have another.
        """
        try:
            # msgspec checks only what it decodes. Invalid UTF-8, or a lone surrogate, in a value that stays JSON text
            # would surface much later, when the value is read.
            if not text.isascii():
                text.decode()
            has_escapes = has_unicode_escape(text)
            if has_escapes and has_lone_surrogate(text):
                raise msgspec.DecodeError("a surrogate stands alone")
            self._values += (number, offset, length, *self._facts(text, has_escapes=has_escapes))
        except FieldError as fault:
            reason = str(fault)
            if reason == MISSING:
                reason = missing_id(decode_raw_fields(msgspec.Raw(text)))
            return _bad_row(number, fault.field, reason, text)
        except msgspec.ValidationError as error:
            message, field, subpath = _DECODE_ERROR.match(str(error)).groups()  # type: ignore[union-attr]
            if field:
                return _bad_row(number, field, f"{message}{f' at {field}{subpath}' if subpath else ''}", text)
            return _not_an_object(number, text, message)
        except UnicodeDecodeError as error:
            return _bad_row(number, None, f"not valid JSON in UTF-8: {error}", text)
        except (msgspec.DecodeError, orjson.JSONDecodeError, RecursionError) as error:
            return _not_an_object(number, text, str(error))
        return None

    def _facts(self, text: bytes, *, has_escapes: bool) -> tuple[Any, ...]:
        # The typed decoder checks the fields' types while it decodes, in half the time. A record that it rejects may
        # still be good: a reward as text in a field that nobody reads, or facts under `metadata`.
        try:
            return compute_typed_facts(self._decode(text), hashed=self._hashed, has_escapes=has_escapes)
        except msgspec.ValidationError:
            return compute_facts(decode_record(text), hashed=self._hashed, has_escapes=has_escapes)

    def _decode(self, text: bytes) -> TypedRecord:
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError:
            # The messages of a file are alike: the decoder that succeeds is tried first for the next record.
            self._decoder, self._other_decoder = self._other_decoder, self._decoder
            return self._decoder.decode(text)

    def _flush(self) -> None:
        # `_values` is one flat list, row after row: column i is every n-th value from i on.
        columns = (self._values[index :: len(COLUMNS)] for index in range(len(COLUMNS)))
        named = zip(COLUMNS.items(), columns, strict=True)
        self._tables.append(pl.DataFrame([pl.Series(name, column, dtype=kind) for (name, kind), column in named]))
        self._values = []


def _not_an_object(number: int, text: bytes, reason: str) -> BadRow:
    """Return the bad row of text that is no JSON object, with the message that all readers of JSON here have for it."""
    parsed = parse_line(number, text)
    return parsed if isinstance(parsed, BadRow) else _bad_row(number, None, reason, text)


def _bad_row(number: int, field: str | None, reason: str, text: bytes) -> BadRow:
    """Return a bad row.

    Args:
        number: 1-based, in the source.
        field: the field that is wrong; None where the text as a whole is.
        reason: what is wrong.
        text: the record, of which the first 2,000 bytes are kept.
    """
    return BadRow(number, field, reason, text[:2000].decode("utf-8", "backslashreplace").rstrip("\n"))
