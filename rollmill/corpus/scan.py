"""Scanning: records become rows of the table, and what is no record is put aside with its reason."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any, cast

import msgspec
import orjson
import polars as pl

from rollmill.corpus.message_forms import ANSWER_ENDS, MARKS, NOTHING, PlainMessage, ScannedMessage
from rollmill.corpus.record import (
    Record,
    decode_record,
    has_code_points,
    has_lone_surrogate,
    is_cut_off_word,
    opened_json,
    raw_fields,
    repair,
)
from rollmill.corpus.row_reader import missing_id
from rollmill.corpus.table import SCHEMA
from rollmill.corpus.written import written
from rollmill.files.rows import BadRow, parse_line

_BATCH = 50_000
_FROM_METADATA = ("instance_id", "sample_id", "reward", "success", "speedup", "model_calls")
# msgspec's message ends with the path of the value, as in "Expected `str`, got `int` - at `$.messages[0].role`".
_WHERE = re.compile(r"^(.*?)(?: - at `\$\.?(\w*)(.*)`)?$", re.DOTALL)
_KIND = re.compile(r"[A-Za-z_][\w.]*")
_MISSING = "missing"
_LARGEST = 2**63 - 1
_LONGEST_NUMBER = 19
"""Digits of a number that may be beyond `_LARGEST`."""
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


_UNUSUAL = (
    *MARKS, "done_reason", "stop_type", "finish_details", "incomplete_details", "choices", "candidates", "response",
    "response_metadata", "generation_info", "meta_info", "details",
)  # fmt: skip
"""Fields of a record that hardly any has; what they say takes time to find out."""
_UNUSUAL_METADATA = (*MARKS, *ANSWER_ENDS, "reasoning_content", "reasoning", "thinking", "tool_calls")
"""Fields of `metadata` that tell of thoughts and calls, and whether the row is cut off or is to be learnt."""


class Usual(Record, gc=False):
    """A record whose fields are all of the kinds that they should be, as most are: found out while decoding."""

    instance_id: Annotated[str, msgspec.Meta(min_length=1)]
    sample_id: _Whole | None = None
    reward: float | None = None
    success: bool | None = None
    speedup: float | None = None
    exit_status: str | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None
    truncated: bool | None = None  # type: ignore[assignment]  # a record leaves it as text
    is_truncated: bool | None = None  # type: ignore[assignment]
    status: str | None = None  # type: ignore[assignment]
    model_calls: _Whole | None = None
    latency_s: float | None = None
    usage: _Usage | None = None
    verdict: _Verdict | None = None  # type: ignore[assignment]


def _usual_decoder(message: type[PlainMessage]) -> msgspec.json.Decoder[Usual]:
    """Return the decoder of usual records whose messages are of that type, all unusual fields null or missing."""
    turns = (list[message] | str | None, None)  # type: ignore[valid-type]
    metadata = msgspec.defstruct("UsualMetadata", [(name, None, None) for name in _UNUSUAL_METADATA], gc=False)
    fields = [
        *(("messages", *turns), ("trajectory", *turns), ("metadata", metadata | None, None)),
        *((name, None, None) for name in _UNUSUAL),
        ("finish_reason_of_gemini", None, msgspec.field(default=None, name="finishReason")),
        ("stop_reason_of_bedrock", None, msgspec.field(default=None, name="stopReason")),
    ]
    return msgspec.json.Decoder(cast("type[Usual]", msgspec.defstruct("UsualRecord", fields, bases=(Usual,), gc=False)))


USUAL_DECODERS = (_usual_decoder(PlainMessage), _usual_decoder(ScannedMessage))
"""Of records whose messages have few fields, and of others; marks of turns are not looked at."""
_verdict = msgspec.json.Decoder(_Verdict | None)
_evaluation = msgspec.json.Decoder(_Evaluation | None)
_metadata = msgspec.json.Decoder(_Metadata | None)


class Scan:
    """Collects the rows of one source, some tens of thousands at a time; see `written` for `hashed`."""

    def __init__(self, *, hashed: bool = True) -> None:
        self._hashed = hashed
        self._usual, self._other_usual = USUAL_DECODERS
        self.repaired: set[int] = set()
        """Numbers of records that held what JSON in UTF-8 has no place for: see `record.repair`."""
        self._values: list[Any] = []  # row after row; tuples kept by the thousand would keep the collector busy
        self._done: list[pl.DataFrame] = []

    def add(self, number: int, text: bytes, offset: int | None) -> BadRow | None:
        """Take one record; return the bad row where it is none.

        Args:
            number: its 1-based number in the source.
            text: its JSON.
            offset: its first byte in the file, where the file can be read from any byte; else None.
        """
        length = None if offset is None else len(text)
        fault = self._take(number, text, offset, length)
        # NaN and Infinity make a line no JSON: only lines that could not be decoded are searched for them.
        if fault and fault.field is None and (mended := repair(text)):
            second = self._take(number, mended, offset, length)
            if not second:
                self.repaired.add(number)
            # Of a repaired line the field that is still wrong is named, and the line is put aside as it stands.
            fault = second and (second._replace(raw=fault.raw) if second.field else fault)
        if len(self._values) == _BATCH * len(COLUMNS):
            self._flush()
        return fault

    def table(self) -> pl.DataFrame:
        """Return the rows so far, without `row`, `source` and `tokens`, in the order they came."""
        self._flush()
        self._done = [pl.concat(self._done)]
        return self._done[0]

    def _take(self, number: int, text: bytes, offset: int | None, length: int | None) -> BadRow | None:
        try:
            if not text.isascii():
                text.decode()  # msgspec passes over the bytes of what it does not decode
            code_points = has_code_points(text)
            if code_points and has_lone_surrogate(text):  # and over escapes
                raise msgspec.DecodeError("a surrogate stands alone")
            # Two decoders: the strict one checks the fields' kinds while it decodes and takes half the time. What it
            # refuses may still be good (a score as text in a field that nobody reads, facts under `metadata`).
            try:
                row_facts = usual_facts(self._decode(text), hashed=self._hashed, code_points=code_points)
            except msgspec.ValidationError:
                row_facts = facts(decode_record(text), hashed=self._hashed, code_points=code_points)
            self._values += (number, offset, length, *row_facts)
        except _FaultyField as fault:
            reason = str(fault)
            if reason == _MISSING:
                reason = missing_id(raw_fields(msgspec.Raw(text)))
            return _bad(number, fault.field, reason, text)
        except msgspec.ValidationError as error:
            message, field, subpath = _WHERE.match(str(error)).groups()  # type: ignore[union-attr]  # matches any text
            if field:
                return _bad(number, field, f"{message}{f' at {field}{subpath}' if subpath else ''}", text)
            return _no_object(number, text, message)
        except UnicodeDecodeError as error:
            return _bad(number, None, f"not valid JSON in UTF-8: {error}", text)
        except (msgspec.DecodeError, orjson.JSONDecodeError, RecursionError) as error:
            return _no_object(number, text, str(error))
        return None

    def _decode(self, text: bytes) -> Usual:
        try:
            return self._usual.decode(text)
        except msgspec.ValidationError:
            # Messages of one file are alike: the other decoder is the first one for the next record.
            self._usual, self._other_usual = self._other_usual, self._usual
            return self._usual.decode(text)

    def _flush(self) -> None:
        # `_values` is one flat list, row after row: column i is every n-th value from i on.
        columns = (self._values[index :: len(COLUMNS)] for index in range(len(COLUMNS)))
        named = zip(COLUMNS.items(), columns, strict=True)
        self._done.append(pl.DataFrame([pl.Series(name, column, dtype=kind) for (name, kind), column in named]))
        self._values = []


def usual_facts(record: Usual, *, hashed: bool = True, code_points: bool = True) -> tuple[Any, ...]:
    """Return the same as `facts`, in half the time. Raises `msgspec.ValidationError` for what only `facts` can tell."""
    claimed, reward, speedup, verdict = record.success, record.reward, record.speedup, record.verdict
    # It may be a training row, whose facts stand under `metadata`, which only `facts` reads.
    if claimed is None and reward is None and record.metadata is not None:
        raise msgspec.ValidationError
    record.metadata = NOTHING  # found to have nothing that is asked for below
    kind = _error_kind(record.error) if record.error else None
    return (
        record.instance_id,
        record.sample_id,
        None if kind else reward,
        None if kind else _success(claimed, record.evaluation_info),
        claimed,
        _status(kind, verdict),
        kind,
        _lenient(verdict.error) if verdict else None,
        None if speedup is None or speedup < 0 else speedup,
        record.exit_status,
        record.finish_reason,
        _is_cut_off(record),
        False,  # a mark would be unusual
        record.model_calls,
        record.latency_s,
        *((record.usage.prompt_tokens, record.usage.completion_tokens) if record.usage else (None, None)),
        *written(record.recorded(), hashed=hashed, code_points=code_points),
    )


def _is_cut_off(record: Usual) -> bool:
    return (
        (record.finish_reason is not None and is_cut_off_word(record.finish_reason))
        or (record.stop_reason is not None and is_cut_off_word(record.stop_reason))
        or record.truncated is True
        or record.is_truncated is True
        or record.status == "incomplete"
        or record.ends_cut_off()
    )


def facts(record: Record, *, hashed: bool = True, code_points: bool = True) -> tuple[Any, ...]:
    """Return what the table holds of a record, from `instance_id` on, in the order of `COLUMNS`.

    Raises `_FaultyField` for a field of a wrong kind, and as `written` does.
    """
    if record.instance_id is None or (record.reward is None and record.success is None):
        _take_from_metadata(record)
    kind = _error_kind(record.error) if record.error else None
    verdict = _decode(_verdict, opened_json(record.verdict))
    claimed = _boolean("success", record.success)
    reward = _number("reward", record.reward)
    speedup = _number("speedup", record.speedup)
    usage = record.usage if type(record.usage) is dict else _NO_USAGE
    return (
        _instance_id(record.instance_id),
        _sample_id(record.sample_id),
        None if kind else reward,
        None if kind else _success(claimed, record.evaluation_info),
        claimed,
        _status(kind, verdict),
        kind,
        _lenient(verdict.error) if verdict else None,
        None if speedup is None or speedup < 0 else speedup,
        _text(record.exit_status),
        _text(record.finish_reason),
        record.is_cut_off(),
        record.is_marked(),
        _whole("model_calls", record.model_calls),
        _lenient(record.latency_s),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        *written(record.recorded(), hashed=hashed, code_points=code_points),
    )


def _take_from_metadata(record: Record) -> None:
    """Fill in what this project's exports, and others', keep beside `messages` under `metadata`."""
    metadata = _decode(_metadata, opened_json(record.metadata))
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


def _status(kind: str | None, verdict: Any) -> str:
    """Return the table's `status`: a rollout with an error failed, whatever a verdict says of it."""
    if kind:
        return "failed"
    return "unparseable" if verdict and verdict.status == "unparseable" else "ok"


def _success(claimed: bool | None, evaluation: msgspec.Raw) -> bool | None:
    """Return the table's `success`: a claimed one does not count where the record's own evaluation denies it."""
    return claimed and not _denied(evaluation)


def _denied(evaluation: msgspec.Raw) -> bool:
    """Return whether a record's own evaluation says that it was no success."""
    if evaluation is NOTHING:
        return False
    evaluation = opened_json(evaluation)
    try:
        decoded = _evaluation.decode(evaluation)
    except msgspec.ValidationError:  # some part of it is of another shape; the others count all the same
        return _denied_in_part(orjson.loads(bytes(evaluation)))
    if decoded is None:
        return False
    answer = decoded.response.json if decoded.response else None
    return any(verdict is not None and verdict.success is False for verdict in (decoded, decoded.meta, answer))


def _denied_in_part(evaluation: Any) -> bool:
    if not isinstance(evaluation, dict):
        return False
    response = evaluation.get("response")
    answer = response.get("json") if isinstance(response, dict) else None
    # Graders write the verdict beside the rest, under `meta`, or under `response.json` as an HTTP service answers.
    parts = (evaluation, evaluation.get("meta"), answer)
    return any(isinstance(part, dict) and part.get("success") is False for part in parts)


def _error_kind(error: Any) -> str:
    if isinstance(error, dict):
        return _text(error.get("type")) or "error"
    match = _KIND.search(error) if isinstance(error, str) else None
    return match[0][:60] if match else "error"


def _instance_id(value: Any) -> str:
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    raise _FaultyField("instance_id", _MISSING if value in (None, "") else f"expected text, found {_shown(value)}")


def _sample_id(value: Any) -> int | None:
    """Return the number of a sample; text that is none names it for others, and it gets the number that it has here."""
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < _LONGEST_NUMBER else None
    return _whole("sample_id", value)


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
    if type(value) in (int, float) and value in (0, 1):  # as pandas writes a column of booleans and nulls
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
    """Return the bad row of what is no JSON object at all, in the words that all readers of JSON here have for it."""
    parsed = parse_line(number, text)
    return parsed if isinstance(parsed, BadRow) else _bad(number, None, reason, text)


def _bad(number: int, field: str | None, reason: str, text: bytes) -> BadRow:
    return BadRow(number, field, reason, text[:2000].decode("utf-8", "backslashreplace").rstrip("\n"))
