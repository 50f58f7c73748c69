"""The facts about one record that make up its row of the table."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from rollmill.corpus.field_values import (
    boolean,
    count_or_none,
    instance_id,
    number,
    number_or_none,
    sample_id,
    text_or_json,
    whole_number,
)
from rollmill.corpus.message_columns import compute_message_columns
from rollmill.corpus.raw_json import NOTHING, parse_raw_text
from rollmill.corpus.record import Record, is_cut_off_word
from rollmill.corpus.typed_record import TypedRecord, TypedVerdict

_METADATA_FIELDS = ("instance_id", "sample_id", "reward", "success", "speedup", "model_calls")
_ERROR_TYPE = re.compile(r"[A-Za-z_][\w.]*")
_NO_USAGE: dict[str, Any] = {}


class _Outcome(msgspec.Struct, gc=False):
    success: Any = None


class _Response(msgspec.Struct):
    json: _Outcome | None = None


class _Evaluation(msgspec.Struct):
    """An evaluation: `success` may be in itself, under `meta`, or under `response.json`, as HTTP services answer."""

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


_verdict = msgspec.json.Decoder(TypedVerdict | None)
_evaluation = msgspec.json.Decoder(_Evaluation | None)
_metadata = msgspec.json.Decoder(_Metadata | None)


def compute_typed_facts(record: TypedRecord, *, hashed: bool = True, has_escapes: bool = True) -> tuple[Any, ...]:
    """Return the same as `compute_facts`, in half the time.

    Raises `msgspec.ValidationError` for a record that only `compute_facts` can evaluate.
    """
    claimed, reward, speedup, verdict = record.success, record.reward, record.speedup, record.verdict
    # It may be a training row, whose facts are under `metadata`, which only `compute_facts` reads.
    if claimed is None and reward is None and record.metadata is not None:
        raise msgspec.ValidationError
    # The decoder has checked that the metadata has none of the fields that are read below.
    record.metadata = NOTHING
    error_type = _error_type(record.error) if record.error else None
    return (
        record.instance_id,
        record.sample_id,
        None if error_type else reward,
        None if error_type else _success(claimed, record.evaluation_info),
        claimed,
        _status(error_type, verdict),
        error_type,
        number_or_none(verdict.error) if verdict else None,
        None if speedup is None or speedup < 0 else speedup,
        record.exit_status,
        record.finish_reason,
        _is_cut_off(record),
        False,  # a record with a training mark fails to decode as this type
        record.model_calls,
        record.latency_s,
        *((record.usage.prompt_tokens, record.usage.completion_tokens) if record.usage else (None, None)),
        *compute_message_columns(record.recorded_messages(), hashed=hashed, has_escapes=has_escapes),
    )


def _is_cut_off(record: TypedRecord) -> bool:
    return (
        (record.finish_reason is not None and is_cut_off_word(record.finish_reason))
        or (record.stop_reason is not None and is_cut_off_word(record.stop_reason))
        or record.truncated is True
        or record.is_truncated is True
        or record.status == "incomplete"
        or record.ends_cut_off()
    )


def compute_facts(record: Record, *, hashed: bool = True, has_escapes: bool = True) -> tuple[Any, ...]:
    """Return the table's values of a record, from `instance_id` on, in the order of `scan.COLUMNS`.

    Raises `FieldError` for a field of a wrong type, and as `compute_message_columns` does, whose arguments it takes.
    """
    if record.instance_id is None or (record.reward is None and record.success is None):
        _take_from_metadata(record)
    error_type = _error_type(record.error) if record.error else None
    verdict = _decode(_verdict, parse_raw_text(record.verdict))
    claimed = boolean("success", record.success)
    reward = number("reward", record.reward)
    speedup = number("speedup", record.speedup)
    usage = record.usage if type(record.usage) is dict else _NO_USAGE
    return (
        instance_id(record.instance_id),
        sample_id(record.sample_id),
        None if error_type else reward,
        None if error_type else _success(claimed, record.evaluation_info),
        claimed,
        _status(error_type, verdict),
        error_type,
        number_or_none(verdict.error) if verdict else None,
        None if speedup is None or speedup < 0 else speedup,
        text_or_json(record.exit_status),
        text_or_json(record.finish_reason),
        record.is_cut_off(),
        record.is_marked(),
        whole_number("model_calls", record.model_calls),
        number_or_none(record.latency_s),
        count_or_none(usage.get("prompt_tokens")),
        count_or_none(usage.get("completion_tokens")),
        *compute_message_columns(record.recorded_messages(), hashed=hashed, has_escapes=has_escapes),
    )


def _take_from_metadata(record: Record) -> None:
    """Fill in the fields that exports, this project's and others, keep beside `messages` under `metadata`."""
    metadata = _decode(_metadata, parse_raw_text(record.metadata))
    for name in _METADATA_FIELDS if metadata else ():
        if getattr(record, name) is None:
            setattr(record, name, getattr(metadata, name))


def _decode(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> Any:
    if raw is NOTHING:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:  # a field of the same name with another meaning
        return None


def _status(error_type: str | None, verdict: Any) -> str:
    """Return the table's `status`: a rollout with an error failed, whatever its verdict."""
    if error_type:
        return "failed"
    return "unparseable" if verdict and verdict.status == "unparseable" else "ok"


def _success(claimed: bool | None, evaluation: msgspec.Raw) -> bool | None:
    """Return the table's `success`: a claimed one does not count where the record's own evaluation denies it."""
    return claimed and not _denies_success(evaluation)


def _denies_success(evaluation: msgspec.Raw) -> bool:
    """Return whether a record's own evaluation found no success."""
    if evaluation is NOTHING:
        return False
    evaluation = parse_raw_text(evaluation)
    try:
        decoded = _evaluation.decode(evaluation)
    except msgspec.ValidationError:  # one part has another shape; the other parts count all the same
        return _any_part_denies(orjson.loads(bytes(evaluation)))
    if decoded is None:
        return False
    answer = decoded.response.json if decoded.response else None
    return any(verdict is not None and verdict.success is False for verdict in (decoded, decoded.meta, answer))


def _any_part_denies(evaluation: Any) -> bool:
    if not isinstance(evaluation, dict):
        return False
    response = evaluation.get("response")
    answer = response.get("json") if isinstance(response, dict) else None
    parts = (evaluation, evaluation.get("meta"), answer)
    return any(isinstance(part, dict) and part.get("success") is False for part in parts)


def _error_type(error: Any) -> str:
    """Return the type of an error: its `type`, or the leading word of a text."""
    if isinstance(error, dict):
        return text_or_json(error.get("type")) or "error"
    match = _ERROR_TYPE.search(error) if isinstance(error, str) else None
    return match[0][:60] if match else "error"
