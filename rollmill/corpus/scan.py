"""Scanning: records become rows of the table, and what is no record is put aside with its reason."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import msgspec
import orjson
import polars as pl

from rollmill.corpus.record import NOTHING, Record, decode_record, without_non_numbers
from rollmill.corpus.table import SCHEMA
from rollmill.corpus.written import written
from rollmill.files.rows import BadRow, parse_line

_BATCH = 50_000
_FROM_METADATA = ("instance_id", "sample_id", "reward", "success", "speedup", "model_calls")
_WHERE = re.compile(r"^(.*?)(?: - at `\$\.?(\w*)(.*)`)?$", re.DOTALL)
_KIND = re.compile(r"[A-Za-z_][\w.]*")
_LARGEST = 2**63 - 1
_MOST = sys.float_info.max
_NO_USAGE: dict[str, Any] = {}
COLUMNS = {name: kind for name, kind in SCHEMA.items() if name not in {"row", "source", "tokens"}}
"""What a scan finds out; the other columns follow from it."""


class _FaultyField(Exception):  # noqa: N818  # it never leaves this module
    """A field that cannot be what it says."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class _Verdict(msgspec.Struct, gc=False):
    status: Any = None
    error: Any = None


class _Outcome(msgspec.Struct, gc=False):
    success: Any = None


class _Response(msgspec.Struct):
    json: _Outcome | None = None


class _Evaluation(msgspec.Struct):
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


_Whole = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Whole | None = None
    completion_tokens: _Whole | None = None


class Usual(Record, gc=False):
    """A record whose fields are all of the kinds that they should be, as most are: found out while decoding."""

    instance_id: Annotated[str, msgspec.Meta(min_length=1)]
    sample_id: _Whole | None = None
    reward: float | None = None
    success: bool | None = None
    speedup: float | None = None
    exit_status: str | None = None
    finish_reason: str | None = None
    model_calls: _Whole | None = None
    latency_s: float | None = None
    usage: _Usage | None = None
    verdict: _Verdict | None = None  # type: ignore[assignment]  # a record leaves it as text


_usual = msgspec.json.Decoder(Usual)
_verdict = msgspec.json.Decoder(_Verdict | None)
_evaluation = msgspec.json.Decoder(_Evaluation | None)
_metadata = msgspec.json.Decoder(_Metadata | None)


class Scan:
    """Collects the rows of one source, some tens of thousands at a time; see `written` for `hashed`."""

    def __init__(self, *, hashed: bool = True) -> None:
        self._hashed = hashed
        self.repaired: set[int] = set()
        """Numbers of records that held NaN or Infinity, which are no JSON: they are read as null."""
        self._values: list[Any] = []  # row after row; tuples kept by the thousand would keep the collector busy
        self._done: list[pl.DataFrame] = []

    def add(self, number: int, text: bytes, offset: int | None) -> BadRow | None:
        """Takes one record; the bad row where it is none. `offset`: its place, where its file can be read anywhere."""
        length = None if offset is None else len(text)
        fault = self._take(number, text, offset, length)
        if fault and fault.field is None and (repaired := without_non_numbers(text)):
            other = self._take(number, repaired, offset, length)
            if not other:
                self.repaired.add(number)
            fault = other and (other._replace(raw=fault.raw) if other.field else fault)
        if len(self._values) == _BATCH * len(COLUMNS):
            self._flush()
        return fault

    def table(self) -> pl.DataFrame:
        """The rows so far, without `row`, `source` and `tokens`, in the order they came."""
        self._flush()
        self._done = [pl.concat(self._done)]
        return self._done[0]

    def _take(self, number: int, text: bytes, offset: int | None, length: int | None) -> BadRow | None:
        try:
            if not text.isascii():
                text.decode()  # msgspec passes over the bytes of what it does not decode
            try:
                found = usual_facts(_usual.decode(text), hashed=self._hashed)
            except msgspec.ValidationError:
                found = facts(decode_record(text), hashed=self._hashed)
            self._values += (number, offset, length, *found)
        except _FaultyField as fault:
            return _bad(number, fault.field, str(fault), text)
        except msgspec.ValidationError as error:
            message, field, place = _WHERE.match(str(error)).groups()  # type: ignore[union-attr]  # matches any text
            if field:
                return _bad(number, field, f"{message}{f' at {field}{place}' if place else ''}", text)
            return _no_object(number, text, message)
        except UnicodeDecodeError as error:
            return _bad(number, None, f"not valid JSON in UTF-8: {error}", text)
        except (msgspec.DecodeError, orjson.JSONDecodeError, RecursionError) as error:
            return _no_object(number, text, str(error))
        return None

    def _flush(self) -> None:
        columns = (self._values[place :: len(COLUMNS)] for place in range(len(COLUMNS)))
        named = zip(COLUMNS.items(), columns, strict=True)
        self._done.append(pl.DataFrame([pl.Series(name, column, dtype=kind) for (name, kind), column in named]))
        self._values = []


def usual_facts(record: Usual, *, hashed: bool = True) -> tuple[Any, ...]:
    """The same as `facts`, in half the time. Raises `msgspec.ValidationError` for what only `facts` can tell."""
    claimed, reward, speedup, verdict = record.success, record.reward, record.speedup, record.verdict
    if claimed is None and reward is None and record.metadata is not NOTHING:
        raise msgspec.ValidationError
    kind = _error_kind(record.error) if record.error else None
    return (
        record.instance_id,
        record.sample_id,
        None if kind else reward,
        None if kind else claimed and not _denied(record.evaluation_info) if claimed else claimed,
        claimed,
        "failed" if kind else "unparseable" if verdict and verdict.status == "unparseable" else "ok",
        kind,
        _lenient(verdict.error) if verdict else None,
        None if speedup is None or speedup < 0 else speedup,
        record.exit_status,
        record.finish_reason,
        record.model_calls,
        record.latency_s,
        *((record.usage.prompt_tokens, record.usage.completion_tokens) if record.usage else (None, None)),
        *written(record.conversation(), hashed=hashed),
    )


def facts(record: Record, *, hashed: bool = True) -> tuple[Any, ...]:
    """What the table says of a record, from `instance_id` on.

    Raises `_FaultyField` for a field of a wrong kind, and as `written` does.
    """
    if record.instance_id is None or (record.reward is None and record.success is None):
        _take_from_metadata(record)
    kind = _error_kind(record.error) if record.error else None
    verdict = _decode(_verdict, record.verdict)
    claimed = _boolean("success", record.success)
    reward = _number("reward", record.reward)
    speedup = _number("speedup", record.speedup)
    usage = record.usage if type(record.usage) is dict else _NO_USAGE
    return (
        _instance_id(record.instance_id),
        _whole("sample_id", record.sample_id),
        None if kind else reward,
        None if kind else claimed and not _denied(record.evaluation_info) if claimed else claimed,
        claimed,
        "failed" if kind else "unparseable" if verdict and verdict.status == "unparseable" else "ok",
        kind,
        _lenient(verdict.error) if verdict else None,
        None if speedup is None or speedup < 0 else speedup,
        _text(record.exit_status),
        _text(record.finish_reason),
        _whole("model_calls", record.model_calls),
        _lenient(record.latency_s),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        *written(record.conversation(), hashed=hashed),
    )


def _take_from_metadata(record: Record) -> None:
    """What this project's exports, and others', keep beside `messages` under `metadata`."""
    metadata = _decode(_metadata, record.metadata)
    for name in _FROM_METADATA if metadata else ():
        if getattr(record, name) is None:
            setattr(record, name, getattr(metadata, name))


def _decode(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> Any:
    if raw is NOTHING:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:  # a field of the same name that means something else
        return None


def _denied(evaluation: msgspec.Raw) -> bool:
    """Whether a record's own evaluation says that it was no success."""
    if evaluation is NOTHING:
        return False
    try:
        found = _evaluation.decode(evaluation)
    except msgspec.ValidationError:  # some part of it is of another shape; the others count all the same
        return _denied_in_part(orjson.loads(bytes(evaluation)))
    if found is None:
        return False
    answer = found.response.json if found.response else None
    return any(said is not None and said.success is False for said in (found, found.meta, answer))


def _denied_in_part(evaluation: Any) -> bool:
    if not isinstance(evaluation, dict):
        return False
    response = evaluation.get("response")
    answer = response.get("json") if isinstance(response, dict) else None
    parts = (evaluation, evaluation.get("meta"), answer)
    return any(isinstance(part, dict) and part.get("success") is False for part in parts)


def _error_kind(error: Any) -> str:
    if isinstance(error, dict):
        return _text(error.get("type")) or "error"
    found = _KIND.search(error) if isinstance(error, str) else None
    return found[0][:60] if found else "error"


def _instance_id(value: Any) -> str:
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    raise _FaultyField("instance_id", "missing" if value in (None, "") else f"expected text, found {_shown(value)}")


def _number(field: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and -_MOST <= value <= _MOST:
        return float(value)
    raise _FaultyField(field, f"expected a number or null, found {_shown(value)}")


def _whole(field: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= _LARGEST:
        return value
    raise _FaultyField(field, f"expected a whole number from 0 on, or null, found {_shown(value)}")


def _boolean(field: str, value: Any) -> bool | None:
    if value is None or value is True or value is False:
        return value
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    raise _FaultyField(field, f"expected true, false or null, found {_shown(value)}")


def _lenient(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and -_MOST <= value <= _MOST else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _LARGEST else None


def _text(value: Any) -> str | None:
    return value if value is None or type(value) is str else _shown(value)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _no_object(number: int, text: bytes, reason: str) -> BadRow:
    """What is no JSON object at all, in the words that all readers of JSON here have for it."""
    found = parse_line(number, text)
    return found if isinstance(found, BadRow) else _bad(number, None, reason, text)


def _bad(number: int, field: str | None, reason: str, text: bytes) -> BadRow:
    return BadRow(number, field, reason, text[:2000].decode("utf-8", "backslashreplace").rstrip("\n"))
