"""A fast path for records whose fields all have the expected types, as those of most files have.

msgspec checks the types while decoding, in half the time that decoding a `Record` and checking its values in Python
takes. Decoding any other record raises `msgspec.ValidationError`: `Scan` catches it, and decodes a `Record` instead,
which accepts more spellings or reports which field is wrong. So a type here may be too strict, but never too lenient.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec

from rollmill.corpus.field_values import LARGEST_INT
from rollmill.corpus.loss_marks import MARKS
from rollmill.corpus.message import PlainMessage, ScannedMessage
from rollmill.corpus.record import Record
from rollmill.corpus.truncation import FINISH_FIELDS

_RARE_FIELDS = (
    *MARKS, "done_reason", "stop_type", "finish_details", "incomplete_details", "choices", "candidates", "response",
    "response_metadata", "generation_info", "meta_info", "details",
)  # fmt: skip
"""Fields that few records have, and that are slow to evaluate."""
_RARE_METADATA = (*MARKS, *FINISH_FIELDS, "reasoning_content", "reasoning", "thinking", "tool_calls")
"""Fields of `metadata` with reasoning or tool calls, or that say that a row is cut off or not trained on."""
_NonNegative = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INT)]


class TypedVerdict(msgspec.Struct, gc=False):
    """The parts of a verifier's verdict from which the columns of the corpus table are computed."""

    # Of any type: the table only tests whether `status` is "unparseable", and whether there is an error.
    status: Any = None
    error: Any = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _NonNegative | None = None
    completion_tokens: _NonNegative | None = None


class TypedRecord(Record, gc=False):
    """A record whose fields all have the expected types: decoding any other record fails."""

    instance_id: Annotated[str, msgspec.Meta(min_length=1)]
    sample_id: _NonNegative | None = None
    reward: float | None = None
    success: bool | None = None
    speedup: float | None = None
    exit_status: str | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None
    truncated: bool | None = None  # type: ignore[assignment]  # `msgspec.Raw` in `Record`, as the next ones
    is_truncated: bool | None = None  # type: ignore[assignment]
    status: str | None = None  # type: ignore[assignment]
    model_calls: _NonNegative | None = None
    latency_s: float | None = None
    usage: _Usage | None = None
    verdict: TypedVerdict | None = None  # type: ignore[assignment]


def _typed_decoder(message_type: type[PlainMessage]) -> msgspec.json.Decoder[TypedRecord]:
    """Return the decoder of typed records with messages of this type, all rare fields null or missing."""
    # Columns of tables have conversations as JSON text.
    turns = list[message_type] | str | None  # type: ignore[valid-type]
    # The type `None` makes decoding fail for any other value: rare fields need no test afterwards.
    metadata = msgspec.defstruct("TypedMetadata", [(name, None, None) for name in _RARE_METADATA], gc=False)
    fields = [
        ("messages", turns, None),
        ("trajectory", turns, None),
        ("metadata", metadata | None, None),
        *((name, None, None) for name in _RARE_FIELDS),
        ("finish_reason_of_gemini", None, msgspec.field(default=None, name="finishReason")),
        ("stop_reason_of_bedrock", None, msgspec.field(default=None, name="stopReason")),
    ]
    record = msgspec.defstruct("TypedRecordOfMessages", fields, bases=(TypedRecord,), gc=False)
    return msgspec.json.Decoder(cast("type[TypedRecord]", record))


TYPED_DECODERS = (_typed_decoder(PlainMessage), _typed_decoder(ScannedMessage))
"""Decoders of records with plain messages, and with messages of any producer.

Both ignore the training marks of turns: no column of the table depends on these, and exports decode a `Record` again.
"""
