"""Scanning: records become rows of the table, and what is no record is put aside with its reason."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import orjson
import polars as pl
import xxhash

from rollmill.corpus.record import NOTHING, Message, Record, decode_record, without_non_numbers
from rollmill.corpus.table import SCHEMA
from rollmill.files.rows import BadRow

_BATCH = 50_000
_FROM_METADATA = ("instance_id", "sample_id", "reward", "success", "speedup", "model_calls")
_WHERE = re.compile(r"^(.*?)(?: - at `\$\.?(\w*)(.*)`)?$", re.DOTALL)
_KIND = re.compile(r"[A-Za-z_][\w.]*")
_BLANK = re.compile(rb'(?:null|"(?:\s|\\[nrtbf]|\\u0020)*"|\[\s*\])?', re.IGNORECASE)
_LARGEST = 2**63
_COLUMNS = [name for name in SCHEMA if name not in {"row", "source", "tokens"}]


class _FaultyField(Exception):  # noqa: N818  # it never leaves this module
    """A field that cannot be what it says."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class _Outcome(msgspec.Struct, gc=False):
    success: Any = None
    status: Any = None
    error: Any = None


class _Response(msgspec.Struct):
    json: _Outcome | None = None


class _Evaluation(msgspec.Struct, gc=False):
    success: Any = None
    meta: _Outcome | None = None
    response: _Response | None = None


class _Metadata(msgspec.Struct):
    instance_id: Any = None
    sample_id: Any = None
    reward: Any = None
    success: Any = None
    speedup: Any = None
    model_calls: Any = None


_outcome = msgspec.json.Decoder(_Outcome)
_evaluation = msgspec.json.Decoder(_Evaluation)
_metadata = msgspec.json.Decoder(_Metadata)


class Scan:
    """Collects the rows of one source, some tens of thousands at a time."""

    def __init__(self) -> None:
        self.repaired: set[int] = set()
        """Numbers of records that held NaN or Infinity, which are no JSON: they are read as null."""
        self._rows: list[tuple[Any, ...]] = []
        self._done: list[pl.DataFrame] = []

    def add(self, number: int, text: bytes, offset: int | None) -> BadRow | None:
        """Takes one record; the bad row where it is none. `offset`: its place, where its file can be read anywhere."""
        try:
            record = self._decoded(number, text)
            self._rows.append((number, offset, None if offset is None else len(text), *facts(record)))
        except _FaultyField as fault:
            return _bad(number, fault.field, str(fault), text)
        except msgspec.ValidationError as error:
            message, field, place = _WHERE.match(str(error)).groups()  # type: ignore[union-attr]  # matches any text
            return _bad(number, field or None, f"{message}{f' at {field}{place}' if place else ''}", text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return _bad(number, None, f"not valid JSON in UTF-8: {error}" if text else "nothing stands here", text)
        if len(self._rows) == _BATCH:
            self._flush()
        return None

    def table(self) -> pl.DataFrame:
        """The rows so far, without `row`, `source` and `tokens`, in the order they came."""
        self._flush()
        self._done = [pl.concat(self._done)]
        return self._done[0]

    def _decoded(self, number: int, text: bytes) -> Record:
        if not text.isascii():
            text.decode()  # msgspec passes over the bytes of what it does not decode
        try:
            return decode_record(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            repaired = without_non_numbers(text)
            if repaired is None:
                raise
            self.repaired.add(number)
            return decode_record(repaired)

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(_COLUMNS)
        series = [pl.Series(name, values, dtype=SCHEMA[name]) for name, values in zip(_COLUMNS, columns, strict=True)]
        self._done.append(pl.DataFrame(series))
        self._rows = []


def facts(record: Record) -> tuple[Any, ...]:
    """What the table says of a record, from `instance_id` on. Raises `_FaultyField` for a field of a wrong kind."""
    if record.instance_id is None or (record.reward is None and record.success is None):
        _take_from_metadata(record)
    kind = _error_kind(record.error)
    verdict = _decode(_outcome, record.verdict) or _Outcome()
    claimed = _boolean("success", record.success)
    reward = _number("reward", record.reward)
    speedup = _number("speedup", record.speedup)
    usage = record.usage if isinstance(record.usage, dict) else {}
    success = claimed and not _denied(_decode(_evaluation, record.evaluation_info)) if claimed else claimed
    return (
        _instance_id(record.instance_id),
        _whole("sample_id", record.sample_id, least=0),
        None if kind else reward,
        None if kind else success,
        claimed,
        "failed" if kind else "unparseable" if verdict.status == "unparseable" else "ok",
        kind,
        _lenient(verdict.error),
        None if speedup is None or speedup < 0 else speedup,
        None if record.exit_status is None else str(record.exit_status),
        None if record.finish_reason is None else str(record.finish_reason),
        _whole("model_calls", record.model_calls, least=0),
        _lenient(record.latency_s),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        *_written(record.conversation()),
    )


def _written(messages: list[Message] | None) -> tuple[int | None, int | None, bool | None, int | None]:
    """Messages, turns, whether these are empty, and the hash of them."""
    if messages is None:
        return None, None, None, None
    written = xxhash.xxh3_64()
    turns, empty = 0, True
    for message in messages:
        if message.role == "assistant":
            turns += 1
            written.update(memoryview(message.content))
            if message.tool_calls is not NOTHING:
                written.update(memoryview(message.tool_calls))
                empty = False
            empty = empty and _BLANK.fullmatch(message.content) is not None
            written.update(b"\0")
    return len(messages), turns, empty, written.intdigest()


def _take_from_metadata(record: Record) -> None:
    """What this project's exports, and others', keep beside `messages` under `metadata`."""
    metadata = _decode(_metadata, record.metadata)
    for name in _FROM_METADATA if metadata else ():
        if getattr(record, name) is None:
            setattr(record, name, getattr(metadata, name))


def _decode(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> Any:
    text = bytes(raw)
    if not text.startswith(b"{"):
        return None
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:  # a field of the same name that means something else
        return None


def _denied(evaluation: _Evaluation | None) -> bool:
    """Whether a record's own evaluation says that it was no success."""
    if evaluation is None:
        return False
    answer = evaluation.response.json if evaluation.response else None
    return any(said is not None and said.success is False for said in (evaluation, evaluation.meta, answer))


def _error_kind(error: Any) -> str | None:
    if not error:
        return None
    if isinstance(error, dict):
        return str(error.get("type") or "error")
    found = _KIND.search(error) if isinstance(error, str) else None
    return found[0][:60] if found else "error"


def _instance_id(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _FaultyField("instance_id", "missing" if value in (None, "") else f"expected text, found {_shown(value)}")


def _number(field: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and abs(value) < 1e300:
        return float(value)
    raise _FaultyField(field, f"expected a number or null, found {_shown(value)}")


def _whole(field: str, value: Any, *, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value < _LARGEST:
        return value
    raise _FaultyField(field, f"expected a whole number from {least} on, or null, found {_shown(value)}")


def _boolean(field: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in (0, 1) and isinstance(value, (int, float)):
        return bool(value)
    raise _FaultyField(field, f"expected true, false or null, found {_shown(value)}")


def _lenient(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else None


def _shown(value: Any) -> str:
    text = orjson.dumps(value, default=str, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _bad(number: int, field: str | None, reason: str, text: bytes) -> BadRow:
    return BadRow(number, field, reason, text[:2000].decode("utf-8", "backslashreplace").rstrip("\n"))
