"""One message of a conversation: the normalized form, and the same as files of any producer have it.

The normalized form: `content` is text or a list of parts, `reasoning_content` the reasoning before the content,
`tool_calls` OpenAI's calls with `arguments` as they were recorded (text or object), a tool's result a message of role
`tool`. `normalize_messages` brings messages of other forms into it.

Each message type has the fields of the one before, and more: `Message`, the normalized form; `PlainMessage`, with the
bookkeeping of our agents, as which nearly all messages decode; `ScannedMessage`, with the fields of any producer
from which the table is computed; `RecordedMessage`, with training marks, for exports. Fewer fields decode faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import msgspec

from rollmill.corpus.raw_json import NOTHING

UNTRAINED = msgspec.Raw(b"0")
"""The `weight` of a turn that is not to be trained on."""


class Message(msgspec.Struct, omit_defaults=True, gc=False):
    """A message in the normalized form: only the fields that training needs, no bookkeeping (times, costs)."""

    role: str = ""
    content: msgspec.Raw = NOTHING
    """JSON: a string, a list of parts, or null."""
    tool_calls: msgspec.Raw = NOTHING
    tool_call_id: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    reasoning_content: msgspec.Raw = NOTHING
    weight: msgspec.Raw = NOTHING
    """0 where the turn is not to be trained on, as in OpenAI's fine-tuning format; else left out."""
    sent_arguments: msgspec.Raw = NOTHING
    """The arguments of the calls as later requests repeated them, a list of texts; left out where both are equal."""
    stop_text: msgspec.Raw = NOTHING
    """The stop string that ended the turn, so that no end-of-turn token was written; empty: an unknown one."""


class PlainMessage(Message, omit_defaults=True, gc=False, forbid_unknown_fields=True):
    """A message of a file that has no fields but those of the normalized form and those that our agents add.

    Most messages decode as this type, in less time than as `ScannedMessage`.
    """

    finish_reason: msgspec.Raw = NOTHING
    extra: msgspec.Raw = NOTHING


class ScannedMessage(PlainMessage, omit_defaults=True, gc=False, forbid_unknown_fields=False):
    """A message of a file, of any producer: the fields that columns of the rollout table are computed from."""

    reasoning: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    thought: msgspec.Raw = NOTHING
    thoughts: msgspec.Raw = NOTHING
    reasoning_text: msgspec.Raw = NOTHING
    analysis: msgspec.Raw = NOTHING
    provider_specific_fields: msgspec.Raw = NOTHING
    thinking_blocks: msgspec.Raw = NOTHING
    reasoning_details: msgspec.Raw = NOTHING
    additional_kwargs: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING
    invalid_tool_calls: msgspec.Raw = NOTHING
    parts: msgspec.Raw = NOTHING
    type: msgspec.Raw = NOTHING
    call_id: msgspec.Raw = NOTHING
    arguments: msgspec.Raw = NOTHING
    output: msgspec.Raw = NOTHING
    summary: msgspec.Raw = NOTHING
    finish_reason_of_gemini: msgspec.Raw = msgspec.field(default=NOTHING, name="finishReason")
    stop_reason: msgspec.Raw = NOTHING
    incomplete_details: msgspec.Raw = NOTHING
    status: msgspec.Raw = NOTHING
    truncated: msgspec.Raw = NOTHING
    metadata: msgspec.Raw = NOTHING
    response_metadata: msgspec.Raw = NOTHING
    stop_reason_of_bedrock: msgspec.Raw = msgspec.field(default=NOTHING, name="stopReason")
    finish_details: msgspec.Raw = NOTHING
    done_reason: msgspec.Raw = NOTHING
    is_truncated: msgspec.Raw = NOTHING
    channel: msgspec.Raw = NOTHING
    kwargs: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    id: msgspec.Raw = NOTHING


class RecordedMessage(ScannedMessage, omit_defaults=True, gc=False):
    """A message of a file, of any producer, with the fields by which producers exclude a turn from training."""

    train: msgspec.Raw = NOTHING
    training: msgspec.Raw = NOTHING
    trainable: msgspec.Raw = NOTHING
    is_trainable: msgspec.Raw = NOTHING
    is_train: msgspec.Raw = NOTHING
    train_on_turn: msgspec.Raw = NOTHING
    train_detail: msgspec.Raw = NOTHING
    loss: msgspec.Raw = NOTHING
    loss_weight: msgspec.Raw = NOTHING
    loss_mask: msgspec.Raw = NOTHING
    mask: msgspec.Raw = NOTHING
    masked: msgspec.Raw = NOTHING
    do_not_train: msgspec.Raw = NOTHING
    exclude_from_training: msgspec.Raw = NOTHING
    ignore: msgspec.Raw = NOTHING
    skip: msgspec.Raw = NOTHING
    should_train: msgspec.Raw = NOTHING
    compute_loss: msgspec.Raw = NOTHING
    calculate_loss: msgspec.Raw = NOTHING
    loss_scale: msgspec.Raw = NOTHING
    is_masked: msgspec.Raw = NOTHING


class ResponsesItem(Message, omit_defaults=True, gc=False):
    """A part of an answer that OpenAI's Responses API has as an item of its own; `join_items` joins them."""


_BOOKKEEPING = (
    "finish_reason", "finish_reason_of_gemini", "stop_reason", "stop_reason_of_bedrock", "done_reason",
    "finish_details", "incomplete_details", "status", "truncated", "is_truncated", "metadata", "response_metadata",
    "extra",
)  # fmt: skip
"""Fields of a message that say how the request for it went."""
_NAMES_IN_FILES = {"finish_reason_of_gemini": "finishReason", "stop_reason_of_bedrock": "stopReason"}
_BOOKKEEPING_IN_FILES = tuple(_NAMES_IN_FILES.get(name, name) for name in _BOOKKEEPING)
BOOKKEEPING = frozenset(_BOOKKEEPING_IN_FILES)
"""Names of these fields in files."""
# A message's form is recognized by comparing many of its fields with `NOTHING` at once: one call of an attrgetter and
# one comparison of tuples take a fraction of the time of a test for each field.
_get_bookkeeping, _NO_BOOKKEEPING = attrgetter(*_BOOKKEEPING), (NOTHING,) * len(_BOOKKEEPING)
_SCANNED_FIELDS = (
    "reasoning_content",
    "weight",
    *(
        field
        for field in ScannedMessage.__struct_fields__
        if field not in {*Message.__struct_fields__, *_BOOKKEEPING, "id"}
    ),
)
_RECORDED_FIELDS = (
    *_SCANNED_FIELDS,
    *(field for field in RecordedMessage.__struct_fields__ if field not in ScannedMessage.__struct_fields__),
)
_get_scanned, _get_recorded = attrgetter(*_SCANNED_FIELDS), attrgetter(*_RECORDED_FIELDS)
_NO_SCANNED, _NO_RECORDED = (NOTHING,) * len(_SCANNED_FIELDS), (NOTHING,) * len(_RECORDED_FIELDS)


def with_all_fields(turn: PlainMessage) -> ScannedMessage:
    """Return a message as one that has every field."""
    if isinstance(turn, ScannedMessage):
        return turn
    return RecordedMessage(**{name: getattr(turn, name) for name in PlainMessage.__struct_fields__})


def has_bookkeeping(turn: ScannedMessage) -> bool:
    """Return whether any bookkeeping field is set."""
    return bool(_get_bookkeeping(turn) != _NO_BOOKKEEPING)


def get_bookkeeping(turn: ScannedMessage) -> Mapping[str, msgspec.Raw]:
    """Return the bookkeeping fields by their names in files, `NOTHING` where one is not set."""
    return dict(zip(_BOOKKEEPING_IN_FILES, _get_bookkeeping(turn), strict=True))


def remove_bookkeeping(turn: ScannedMessage) -> None:
    """Unset the bookkeeping fields."""
    for name in _BOOKKEEPING:
        setattr(turn, name, NOTHING)


def has_normalized_fields(turn: PlainMessage) -> bool:
    """Return whether a message has no field of another form than OpenAI's, no reasoning and no training mark."""
    if not isinstance(turn, ScannedMessage):
        return turn.reasoning_content is NOTHING and turn.weight is NOTHING
    get, nothing = (_get_scanned, _NO_SCANNED) if type(turn) is ScannedMessage else (_get_recorded, _NO_RECORDED)
    return bool(get(turn) == nothing)
