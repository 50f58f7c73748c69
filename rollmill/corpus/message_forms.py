"""The forms in which producers write thoughts, tool calls and their results, all brought into one.

One form: `content` is text or a list of parts, `reasoning_content` the thoughts before it, `tool_calls` OpenAI's calls
with `arguments` as they were recorded (text or object), a result a message of role `tool`. Read are OpenAI's chat
completions, old (`function_call`, role `function`) and new, and Responses items; LangChain's messages; Anthropic's and
LangChain's parts and calls; Gemini's `parts`; the names that servers have for thoughts, gpt-oss's channel of them; and
what producers mark as not to be learnt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import orjson

from rollmill.records import is_cut_off

NOTHING = msgspec.Raw()
_NULL = b"null"
_NOT_LEARNT = msgspec.Raw(b"0")
_BY_A_TEXT = b'"stop_sequence"'
"""Why Anthropic's servers say that an answer ended at one of the texts that were to end it."""
EMPTY_TEXT = msgspec.Raw(b'""')

Part = dict[str, Any]


class Message(msgspec.Struct, omit_defaults=True, gc=False):
    """One message, with what training needs of it; an agent's bookkeeping (times, costs) is left behind."""

    role: str = ""
    content: msgspec.Raw = NOTHING
    """JSON: a string, a list of parts, or null."""
    tool_calls: msgspec.Raw = NOTHING
    tool_call_id: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    reasoning_content: msgspec.Raw = NOTHING
    weight: msgspec.Raw = NOTHING
    """0 where the turn is not to be learnt, as OpenAI's fine-tuning has it; else left out."""
    sent_arguments: msgspec.Raw = NOTHING
    """The arguments of the calls as later requests had them, a text each; left out where they were the calls' own."""
    stop_text: msgspec.Raw = NOTHING
    """The stop text that ended the turn, so that the model wrote no end; empty where it is only likely that one did."""


class PlainMessage(Message, omit_defaults=True, gc=False, forbid_unknown_fields=True):
    """One message as it stands in a file, with no other fields than the one form has and this project's agents add."""

    finish_reason: msgspec.Raw = NOTHING
    extra: msgspec.Raw = NOTHING


class ScannedMessage(PlainMessage, omit_defaults=True, gc=False, forbid_unknown_fields=False):
    """One message as it stands in a file, in whatever form: as much of it as a table of rollouts is made of."""

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
    """The same with the marks by which producers say that a turn is not to be learnt."""

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


class _Item(Message, omit_defaults=True, gc=False):
    """A part of an answer that Responses has as an item of its own."""


class Function(msgspec.Struct, omit_defaults=True):
    """What a call calls."""

    name: str = ""
    arguments: msgspec.Raw = NOTHING
    """JSON: a string, as servers send it, or an object."""


class Call(msgspec.Struct, omit_defaults=True):
    """One tool call in OpenAI's form."""

    id: Any = None
    type: str = "function"
    function: Function = msgspec.field(default_factory=Function)

    def to_json(self, empty: Literal["object", "text"] = "object") -> dict[str, Any]:
        """Return the call as it is written: without an id where it has none, no arguments as `empty` says."""
        named = {} if self.id in (None, "") else {"id": self.id}
        nothing = msgspec.Raw(b"{}" if empty == "object" else b'"{}"')
        arguments = nothing if is_absent(self.function.arguments) else self.function.arguments
        return {**named, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class PlainFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a call calls, as OpenAI has it."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    arguments: msgspec.Raw
    """JSON: a string, as servers send it, or an object."""


class PlainCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One tool call that has OpenAI's form, and nothing besides: nearly all have."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    type: Literal["function"]
    function: PlainFunction


class _AnyCall(msgspec.Struct):
    """A call in any form."""

    id: Any = None
    call_id: Any = None
    tool_use_id: Any = msgspec.field(default=None, name="toolUseId")
    type: Any = None
    name: Any = None
    function: msgspec.Raw = NOTHING
    arguments: msgspec.Raw = NOTHING
    args: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING


class _FunctionFields(msgspec.Struct):
    """Other names of a function's arguments."""

    args: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING


class _MoreFields(msgspec.Struct):
    """What LangChain and LiteLLM keep in an object beside a message's own fields."""

    reasoning_content: msgspec.Raw = NOTHING
    tool_calls: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING


class _SentExtra(msgspec.Struct):
    sent_arguments: msgspec.Raw = NOTHING


_plain_calls = msgspec.json.Decoder(Annotated[list[PlainCall], msgspec.Meta(min_length=1)])
_calls = msgspec.json.Decoder(list[Call])
_any_calls = msgspec.json.Decoder(list[_AnyCall])
_any_call = msgspec.json.Decoder(_AnyCall)
_function = msgspec.json.Decoder(Function)
_function_fields = msgspec.json.Decoder(_FunctionFields)
_sent_extra = msgspec.json.Decoder(_SentExtra)
_more_fields = msgspec.json.Decoder(_MoreFields)
_recorded_message = msgspec.json.Decoder(RecordedMessage)
_role = attrgetter("role")
_raw_parts = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_QUOTE = 0x22
_NO_CALLS: list[PlainCall] = []
_BOOKKEEPING = (
    "finish_reason", "finish_reason_of_gemini", "stop_reason", "stop_reason_of_bedrock", "done_reason",
    "finish_details", "incomplete_details", "status", "truncated", "is_truncated", "metadata", "response_metadata",
    "extra",
)  # fmt: skip
"""Fields of a message that say how it came to be."""
_NAMES_IN_FILES = {"finish_reason_of_gemini": "finishReason", "stop_reason_of_bedrock": "stopReason"}
BOOKKEEPING = frozenset(_NAMES_IN_FILES.get(name, name) for name in _BOOKKEEPING)
"""Their names in files."""
_BOOKKEEPING_IN_FILES = tuple(_NAMES_IN_FILES.get(name, name) for name in _BOOKKEEPING)
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
_scanned, _recorded = attrgetter(*_SCANNED_FIELDS), attrgetter(*_RECORDED_FIELDS)
_bookkeeping, _NO_BOOKKEEPING = attrgetter(*_BOOKKEEPING), (NOTHING,) * len(_BOOKKEEPING)
_NO_SCANNED, _NO_RECORDED = (NOTHING,) * len(_SCANNED_FIELDS), (NOTHING,) * len(_RECORDED_FIELDS)
_BESIDE_TEXT = ("tool_calls", "reasoning_content", "weight", "finish_reason", "extra")
_beside_text, _NOTHING_BESIDE = attrgetter(*_BESIDE_TEXT), (NOTHING,) * len(_BESIDE_TEXT)
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thinking_blocks", "reasoning_details")
_REPEATED_THOUGHTS = ("thought", "thoughts", "analysis")
"""Names under which agents also repeat what the content says."""
MARKS = (
    "weight", "train", "training", "trainable", "is_trainable", "is_train", "loss_mask",
    "masked", "is_masked", "should_train", "do_not_train", "exclude_from_training",
)  # fmt: skip
"""The names by which producers mark what is not to be learnt, of rows, of messages and in the metadata of both."""
_TURN_MARKS = (
    *MARKS, "train_on_turn", "loss", "loss_weight", "ignore", "skip", "compute_loss", "calculate_loss", "loss_scale",
)  # fmt: skip
"""Of messages; a row's `loss` is a measurement, and what is to skip a row is not said."""
_HIDDEN = frozenset({"masked", "is_masked", "do_not_train", "exclude_from_training", "ignore", "skip"})
"""The marks that say so by being true; all others do by being false, 0, or less."""
_marks, _turn_marks = attrgetter(*MARKS), attrgetter(*_TURN_MARKS)
_NO_MARKS, _NO_TURN_MARKS = (NOTHING,) * len(MARKS), (NOTHING,) * len(_TURN_MARKS)
_ABOUT_MARKS = re.compile(rb"train|weight|mask")
_REASONS = (
    "finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "incomplete_details",
    "finish_details", "stop_type",
)  # fmt: skip
_ANSWERS = (
    "choices", "candidates", "response", "response_metadata", "generation_info", "meta_info", "details",
)  # fmt: skip
"""Objects in which servers and their clients say it."""
ANSWER_ENDS = (*_REASONS, "truncated", "is_truncated", *_ANSWERS)
"""Fields by which an object of further facts says how an answer ended."""
_LONGEST_REASON = 500
_ABOUT_CUTS = (b"eason", b"truncated", b"_details", b"stop_type")
_ROLES = {"function": "tool", "model": "assistant", "human": "user", "ai": "assistant"}
_CLASSES = re.compile(r"(human|ai|system|tool|function|chat)(?:message)?(?:chunk)?", re.IGNORECASE)
"""LangChain's types of messages, and the names of their classes."""
_OTHER_ROLES = frozenset({"", *_ROLES})
_MODELS = frozenset({"assistant", *(name for name, role in _ROLES.items() if role == "assistant")})
_NO = re.compile(
    rb'false|"(?:false|no|-?0|-1)"|-\d[\d.e+-]*|0(?:\.0*)?(?:e[+-]?\d+)?'
    rb"|\[\s*(?:(?:0(?:\.0*)?|false)\s*,\s*)*(?:0(?:\.0*)?|false)\s*\]"
)
_YES = frozenset({b"true", b"1", b"1.0", b'"true"', b'"yes"', b'"1"'})
_WRITTEN_ITEM_TYPES = frozenset({b'"function_call"', b'"reasoning"', b'"custom_tool_call"'})
_ITEM_TYPES = _WRITTEN_ITEM_TYPES | {b'"function_call_output"', b'"custom_tool_call_output"'}
_TYPELESS_IMAGES = frozenset({"image", "image_url", "inlineData", "inline_data"})
_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
_OPENED, _LONGEST_OPENING = b"<think>", 100
_ANALYSIS = b'"analysis"'
"""The channel of gpt-oss in which the model thinks."""
_THOUGHT_TYPES = frozenset({"thinking", "reasoning", "redacted_thinking", "reasoning_content"})
_RESULT_TYPES = frozenset({"tool_result", "function_call_output"})
_CALL_TYPES = frozenset({"tool_use", "tool_call", "function_call"})
_SERVER_CALL = re.compile(r"(?:server|mcp)_tool_use|\w+_tool_result|custom_tool_call")
"""Parts of calls that have no form here: what a server did in the middle of an answer, and calls with plain text."""
_CALLS_WITH_TEXT = ("custom", "custom_tool_call")
_NO_ARGUMENTS = (b'""', _NULL)
_LENGTH_OF_NONE = max(map(len, _NO_ARGUMENTS))


def is_absent(value: msgspec.Raw) -> bool:
    """Return whether nothing was recorded, or null."""
    return len(value) == 0 or (len(value) == 4 and bytes(value) == _NULL)


def says_no(value: msgspec.Raw) -> bool:
    """Return whether a recorded value is false or not above 0, also as text, or a list of nothing but that."""
    return len(value) > 0 and _NO.fullmatch(bytes(value).lower()) is not None


def says_yes(value: msgspec.Raw) -> bool:
    """Return whether a recorded value is true or 1, also as text."""
    return len(value) > 0 and bytes(value).lower() in _YES


def is_cut_off_turn(turn: PlainMessage) -> bool:
    """Return whether a message itself says that it was cut off at a limit on tokens."""
    if not isinstance(turn, ScannedMessage):
        reason = turn.finish_reason
        return (reason is not NOTHING and _is_cut_off(bytes(reason))) or (
            turn.extra is not NOTHING and tells_of_cut(turn.extra)
        )
    if _bookkeeping(turn) == _NO_BOOKKEEPING:
        return False
    own = dict(zip(_BOOKKEEPING_IN_FILES, _bookkeeping(turn), strict=True))
    return says_cut_off(own) or any(
        tells_of_cut(_opened_object(value)) for value in (turn.metadata, turn.response_metadata, turn.extra)
    )


def tells_of_cut(metadata: msgspec.Raw) -> bool:
    """Return whether an object of further facts says that an answer was cut off; its `status` is something else's."""
    text = bytes(metadata)
    if text[:1] != b"{" or not any(word in text for word in _ABOUT_CUTS):
        return False
    return says_cut_off({name: value for name, value in _fields.decode(text).items() if name != "status"})


def says_cut_off(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether an answer's fields say that it was cut off at a limit on tokens, under any producer's names."""
    if any(len(fields.get(name, NOTHING)) and _is_cut_off(bytes(fields[name])) for name in _REASONS):
        return True
    if any(says_yes(fields.get(name, NOTHING)) for name in ("truncated", "is_truncated")):
        return True
    if bytes(fields.get("status", NOTHING)) == b'"incomplete"':
        return True
    return any(says_cut_off(_first_object(fields[name])) for name in _ANSWERS if name in fields)


def _first_object(value: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the fields of an object, or of the first one of a list."""
    text = bytes(value)
    if text[:1] == b"[":
        text = bytes(next(iter(_raw_parts.decode(text)), NOTHING))
    return _fields.decode(text) if text[:1] == b"{" else {}


def _is_cut_off(value: bytes) -> bool:
    return len(value) < _LONGEST_REASON and _is_cut_off_reason(value)


@lru_cache(256)
def _is_cut_off_reason(value: bytes) -> bool:
    reason = msgspec.json.decode(value)
    reasons = [reason.get("type"), reason.get("reason")] if isinstance(reason, dict) else [reason]
    return any(map(is_cut_off, reasons))


def has_mark(row: Any) -> bool:
    """Return whether a row's own fields mark it as not to be learnt, under any of the names in `MARKS`."""
    values = _marks(row)
    return values != _NO_MARKS and _say_not_learnt(dict(zip(MARKS, values, strict=True)))


def metadata_has_mark(metadata: msgspec.Raw) -> bool:
    """Return whether an object of further facts has such a mark."""
    text = bytes(metadata)
    return text[:1] == b"{" and _ABOUT_MARKS.search(text) is not None and _say_not_learnt(_fields.decode(text))


def _say_not_learnt(fields: Mapping[str, msgspec.Raw], names: Sequence[str] = MARKS) -> bool:
    return any(
        says_yes(value) if name in _HIDDEN else says_no(value)
        for name in names
        if (value := fields.get(name)) is not None
    )


def with_roles(turns: Sequence[PlainMessage]) -> Sequence[PlainMessage]:
    """Return messages with roles: LangChain writes types in their place, or the message inside of an object."""
    return turns if all(map(_role, turns)) else [turn if turn.role else _of_langchain(turn) for turn in turns]


def _of_langchain(turn: PlainMessage) -> PlainMessage:
    """Return a message of LangChain with its role; any other one as it is.

    Written are `{"type": "ai", "content"}`, `{"type": "ai", "data": {"content"}}`, and as LangChain's own loader reads
    them `{"lc": 1, "id": [..., "AIMessage"], "kwargs": {"content"}}`.
    """
    if not isinstance(turn, ScannedMessage) or _item_type(turn) in _ITEM_TYPES:
        return turn
    inner = next((value for value in (turn.kwargs, turn.data) if bytes(memoryview(value)[:1]) == b"{"), None)
    message = turn if inner is None else _recorded_message.decode(inner)
    if not message.role:
        path = _decode(turn.id) if inner is not None and len(turn.id) else None
        message.role = langchain_role(path, _decoded_type(message), _decoded_type(turn))
    return message


def langchain_role(path: Any, *types: Any) -> str:
    """Return the role of a message of LangChain; empty for another one.

    Args:
        path: Where its class is, the name last; None where it is not known.
        types: What `type` says of it.
    """
    names = [*(path[-1:] if isinstance(path, list) else ()), *types]
    matches = (_CLASSES.fullmatch(name) for name in names if isinstance(name, str))
    found = next((match[1].lower() for match in matches if match), "")
    return _ROLES.get(found, found)


def _decoded_type(turn: ScannedMessage) -> Any:
    return _decode(turn.type) if len(turn.type) else None


def is_models(turn: PlainMessage) -> bool:
    """Return whether a message, or an item of Responses, is the model's."""
    return turn.role in _MODELS or (not turn.role and _item_type(turn) in _WRITTEN_ITEM_TYPES)


def _item_type(turn: PlainMessage) -> bytes:
    """Return the type of a message without a role, as JSON: it may be an item of Responses."""
    return bytes(turn.type) if isinstance(turn, ScannedMessage) else b""


def is_marked(turn: RecordedMessage) -> bool:
    """Return whether a message is marked as not to be learnt, under any name that producers have for it."""
    values = _turn_marks(turn)
    if values != _NO_TURN_MARKS and _say_not_learnt(dict(zip(_TURN_MARKS, values, strict=True)), _TURN_MARKS):
        return True
    # A mask of 0 hides a turn from the loss, and so does `true`: one is a loss mask, the other says that it is masked.
    mask = bytes(turn.mask).lower()
    if mask == b"true" or (mask[:1] in (b"0", b"[") and says_no(turn.mask)):
        return True
    details = _decode(turn.train_detail) if len(turn.train_detail) else None
    return isinstance(details, list) and any(isinstance(each, dict) and each.get("train") is False for each in details)


def in_one_form(messages: Sequence[PlainMessage], images: Iterable[str] = ()) -> list[Message]:
    """Return messages in the one form. Those that have it already are changed in place: bookkeeping is left out.

    `images` are paths of the images that parts `{"type": "image"}` stand for, in order. An earlier turn that was cut
    off has weight 0: what was written after it would teach that it ended.
    """
    if all(map(_is_text, messages)):
        return list(messages)
    formed: list[Message] = []
    paths = iter(images)
    cut_off: int | None = None  # where the last turn of the model stands, if it was cut off
    items = cut = False
    for number, turn in enumerate(messages):
        written = is_models(turn)
        if written:
            if cut_off is not None:
                formed[cut_off].weight = _NOT_LEARNT
            cut = is_cut_off_turn(turn)
        _leave_bookkeeping_out(turn)
        if not turn.role:
            items = True
            if _item_type(turn) not in _ITEM_TYPES:
                raise msgspec.ValidationError(f"Object missing required field `role` - at `$.messages[{number}]`")
        items = items or _is_analysis(turn)
        calls = plain_calls(turn)
        if calls is None:
            formed.extend(_Forming(_with_all_fields(turn), paths).messages())
        else:
            if calls:
                turn.tool_calls = _encode(calls)
            formed.append(turn)
        if written:
            cut_off = len(formed) - 1 if cut else None
    return _joined_items(formed) if items else formed


def _is_analysis(turn: PlainMessage) -> bool:
    """Return whether a message of the model is its thoughts, as gpt-oss has them."""
    return isinstance(turn, ScannedMessage) and turn.role in _MODELS and bytes(turn.channel) == _ANALYSIS


def has_analysis(messages: Sequence[PlainMessage]) -> bool:
    """Return whether any of a record's messages is thoughts by itself."""
    turns = [turn for turn in messages if isinstance(turn, ScannedMessage) and turn.channel is not NOTHING]
    return any(map(_is_analysis, turns))


def _is_text(turn: PlainMessage) -> bool:
    """Return whether a message is a role and a text, and nothing else."""
    return (
        type(turn) is PlainMessage
        and _beside_text(turn) == _NOTHING_BESIDE
        and turn.role not in _OTHER_ROLES
        and len(turn.content) > 0
        and memoryview(turn.content)[0] == _QUOTE
    )


def _with_all_fields(turn: PlainMessage) -> ScannedMessage:
    if isinstance(turn, ScannedMessage):
        return turn
    return RecordedMessage(**{name: getattr(turn, name) for name in PlainMessage.__struct_fields__})


def _leave_bookkeeping_out(turn: PlainMessage) -> None:
    """Leave a message's bookkeeping out, but for what training needs of it."""
    if isinstance(turn, ScannedMessage):
        if _bookkeeping(turn) != _NO_BOOKKEEPING:
            _keep_of_bookkeeping(turn)
            for name in _BOOKKEEPING:
                setattr(turn, name, NOTHING)
        return
    if turn.extra is not NOTHING:
        _keep_sent_arguments(turn)
        turn.extra = NOTHING
    turn.finish_reason = NOTHING


def _keep_of_bookkeeping(turn: ScannedMessage) -> None:
    if turn.stop_reason is not NOTHING and bytes(turn.stop_reason) == _BY_A_TEXT and is_absent(turn.stop_text):
        turn.stop_text = EMPTY_TEXT
    if isinstance(turn, RecordedMessage) and metadata_has_mark(_opened_object(turn.metadata)):
        turn.weight = _NOT_LEARNT
    _keep_sent_arguments(turn)


def _keep_sent_arguments(turn: PlainMessage) -> None:
    extra = bytes(turn.extra)
    if b'"sent_arguments"' in extra and extra[:1] == b"{":
        turn.sent_arguments = _sent_extra.decode(extra).sent_arguments


def _has_no_other_form(turn: PlainMessage) -> bool:
    """Return whether a message has no field of another form than OpenAI's, no thoughts and no mark."""
    if not isinstance(turn, ScannedMessage):
        return turn.reasoning_content is NOTHING and turn.weight is NOTHING
    marks, nothing = (_scanned, _NO_SCANNED) if type(turn) is ScannedMessage else (_recorded, _NO_RECORDED)
    return bool(marks(turn) == nothing)


def plain_calls(turn: PlainMessage) -> list[PlainCall] | None:
    """Return the tool calls of a message that has the one form but for what is to be left out of its calls.

    None where the message, or a call, needs to be looked into.
    """
    content = turn.content
    is_text = len(content) > 0 and memoryview(content)[0] == _QUOTE
    if turn.tool_calls is NOTHING:
        return _NO_CALLS if is_text and turn.role not in _ROLES and _has_no_other_form(turn) else None
    if (
        turn.role != "assistant"
        or turn.tool_call_id is not NOTHING
        or turn.name is not NOTHING
        or not (is_text or is_absent(content))
        or not _has_no_other_form(turn)
    ):
        return None
    return read_plain_calls(turn.tool_calls)


def read_plain_calls(tool_calls: msgspec.Raw) -> list[PlainCall] | None:
    """Return calls that have OpenAI's form, arguments included, and nothing besides; None for all others."""
    try:
        calls: list[PlainCall] = _plain_calls.decode(tool_calls)
    except msgspec.MsgspecError:
        return None
    for call in calls:
        if len(call.function.arguments) <= _LENGTH_OF_NONE and bytes(call.function.arguments) in _NO_ARGUMENTS:
            return None
    return calls


class Values(NamedTuple):
    """What the model wrote in one turn, decoded."""

    content: Any
    reasoning: Any
    calls: Any


def plain_values(turn: PlainMessage, calls: list[PlainCall]) -> Values:
    """Return the same as `turn_values` of a message whose calls `plain_calls` returned."""
    content = _decode(turn.content) if len(turn.content) else None
    return Values(content, None, [_plain_call_values(call.function) for call in calls] or None)


def _plain_call_values(function: PlainFunction) -> dict[str, Any]:
    arguments = _decode(function.arguments)
    if isinstance(arguments, str):
        arguments = _opened_text(arguments)
    return {"type": "function", "function": {"name": function.name, "arguments": arguments}}


def turn_values(turn: Message) -> Values:
    """Return a turn's values, the arguments of calls opened where they are JSON, ids left out: they are random."""
    formed = _Forming(_with_all_fields(turn), iter(())).turn() if isinstance(turn, PlainMessage) else turn
    calls = _decode(formed.tool_calls) if len(formed.tool_calls) else None
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            call.pop("id", None)
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                function["arguments"] = _opened_text(function["arguments"])
    content = _decode(formed.content) if len(formed.content) else None
    return Values(content, _decode(formed.reasoning_content) if len(formed.reasoning_content) else None, calls)


def _opened_object(value: msgspec.Raw) -> msgspec.Raw:
    """Return the object that a JSON string holds; any other value as it is."""
    if bytes(memoryview(value)[:2]) != b'"{':
        return value
    try:
        text = msgspec.json.decode(value).encode("utf-8", "replace")
        return msgspec.Raw(bytes(msgspec.json.decode(text, type=msgspec.Raw)))
    except (msgspec.DecodeError, RecursionError):
        return value


def _opened_text(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def _decode(value: msgspec.Raw) -> Any:
    return msgspec.json.decode(value)


def _encode(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def without_nulls(value: Any) -> Any:
    """Return a value without null fields: where rows share columns, a field that one row has is null in all others."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def without_thoughts(content: str, thoughts: str) -> str:
    """Return a content without the block of thoughts that it begins with, where these stand beside it, too."""
    text = content.lstrip()
    if not text.startswith("<think>"):
        return content
    block, closing, answer = text.removeprefix("<think>").partition("</think>")
    return answer.lstrip("\n") if closing and block.strip() == thoughts.strip() else content


def thoughts_text(value: Any) -> str:
    """Return thoughts as text: of text itself, of parts and blocks in any form, a line each."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(thoughts_text, value)))
    if isinstance(value, dict):
        keys = (
            "thinking", "reasoning", "reasoning_content", "reasoningContent", "reasoningText", "text", "summary",
            "content",
        )  # fmt: skip
        return next((text for key in keys if (text := thoughts_text(value.get(key)))), "")
    return ""


def formed_calls(value: msgspec.Raw, *, filled: bool = False) -> list[Call]:
    """Return calls in OpenAI's form, whatever their own; `filled`: null fields of arguments are a writer's.

    What is no call, or has no place in that form, is a call without a name: see `has_nameless_call`.
    """
    text = bytes(value)
    if text[:1] == b'"':  # a column of JSON text
        text = msgspec.json.decode(text).strip().encode("utf-8", "replace")
    if not text or text in (_NULL, b"{}"):
        return []
    try:
        calls = [_call(each) for each in _any_calls.decode(text if text[:1] == b"[" else b"[" + text + b"]")]
    except msgspec.MsgspecError:
        return [Call()]
    for call in calls:
        arguments = call.function.arguments
        if filled and bytes(arguments)[:1] == b"{":
            call.function.arguments = _encode(without_null_fields(arguments))
    return calls


def has_nameless_call(turn: Message) -> bool:
    """Return whether a turn of the one form calls something without a name: a call that could not be read as one."""
    if len(turn.tool_calls) == 0 or b'"name":""' not in bytes(turn.tool_calls):
        return False
    return any(not call.function.name for call in _read_calls(turn.tool_calls))


def without_null_fields(value: msgspec.Raw) -> Any:
    """Return an object's JSON without null fields at any depth, all other values as they are spelt."""
    text = bytes(value)
    if text[:1] == b"{":
        return {key: without_null_fields(item) for key, item in _fields.decode(text).items() if not is_absent(item)}
    return [without_null_fields(item) for item in _raw_parts.decode(text)] if text[:1] == b"[" else value


def _call(call: _AnyCall) -> Call:
    if call.type in _CALLS_WITH_TEXT:  # whose input is no arguments
        return Call()
    function = Function(call.name if isinstance(call.name, str) else "")
    if bytes(call.function)[:1] == b"{":
        function = _function.decode(call.function)
    elif bytes(call.function)[:1] == b'"' and not function.name:
        function = Function(_decode(call.function))
    if is_absent(function.arguments):
        inner = _function_fields.decode(call.function) if bytes(call.function)[:1] == b"{" else _FunctionFields()
        given = (call.arguments, call.args, call.input, call.parameters, inner.args, inner.input, inner.parameters)
        function.arguments = next((value for value in given if not is_absent(value)), NOTHING)
    if bytes(function.arguments) in _NO_ARGUMENTS:  # as servers send it of a call without arguments
        function.arguments = NOTHING
    return Call(call.call_id or call.id or call.tool_use_id, "function", function)


class _Forming:
    """One message on its way into the one form."""

    def __init__(self, turn: ScannedMessage, images: Iterator[str]) -> None:
        self._turn = turn
        self._images = images
        self._thoughts: list[str] = []
        self._calls: list[Call] = []
        self._results: list[Message] = []
        self._parts: list[Part] = []
        # A table's writer gives every message every field: one that is null tells of the others.
        extras = (turn.tool_calls, turn.tool_call_id, turn.name, turn.reasoning_content, turn.weight)
        self._filled = any(len(value) == 4 and bytes(value) == _NULL for value in extras)

    def messages(self) -> list[Message]:
        """Return the message, after the results that stand in it as parts."""
        turn = self.turn()
        says_something = self._parts or not self._results
        return [*self._results, *([turn] if says_something else [])]

    def turn(self) -> Message:
        """Return the message."""
        turn = self._turn
        item = self._responses_item()
        if item is not None:
            return item
        content = turn.content if not is_absent(turn.content) or is_absent(turn.parts) else turn.parts
        if bytes(memoryview(content)[:1]) == b"[":
            content = self._formed_content(content)
        self._take_fields()
        role = _ROLES.get(turn.role, turn.role)
        thoughts = "\n".join(dict.fromkeys(filter(str.strip, self._thoughts)))
        if thoughts and _OPENED in bytes(content)[:_LONGEST_OPENING] and memoryview(content)[0] == _QUOTE:
            content = _encode(without_thoughts(_decode(content), thoughts))
        return Message(
            role,
            content,
            _encode([call.to_json() for call in self._calls]) if self._calls else NOTHING,
            _present(turn.tool_call_id) or _present(turn.call_id),
            _present(turn.name),
            _encode(thoughts) if thoughts else NOTHING,
            _NOT_LEARNT if role == "assistant" and isinstance(turn, RecordedMessage) and is_marked(turn) else NOTHING,
            _present(turn.sent_arguments) if self._calls else NOTHING,
            _present(turn.stop_text) if role == "assistant" else NOTHING,
        )

    def _take_fields(self) -> None:
        turn = self._turn
        if turn.role and turn.role not in _MODELS:
            return
        objects = (turn.additional_kwargs, turn.provider_specific_fields)
        more = [_more_fields.decode(value) for value in objects if bytes(memoryview(value)[:1]) == b"{"]
        values = [*(getattr(turn, name) for name in _THOUGHTS), *(fields.reasoning_content for fields in more)]
        self._take_thoughts(values)
        if not self._thoughts:
            self._take_thoughts([getattr(turn, name) for name in _REPEATED_THOUGHTS], unlike=turn.content)
        for value in (turn.tool_calls, *(fields.tool_calls for fields in more)):
            if not self._calls and not is_absent(value):
                self._calls = formed_calls(value, filled=self._filled)
        for value in (turn.function_call, *(fields.function_call for fields in more)):
            if not self._calls and bytes(value)[:1] == b"{" and not all(map(is_absent, _fields.decode(value).values())):
                self._calls = [_call(_any_call.decode(value))]
        if not is_absent(turn.invalid_tool_calls):  # what is no JSON, as it was written
            known = {call.id for call in self._calls}
            self._calls += [call for call in formed_calls(turn.invalid_tool_calls) if call.id not in known]

    def _take_thoughts(self, values: Iterable[msgspec.Raw], unlike: msgspec.Raw = NOTHING) -> None:
        """Take the first thoughts that say anything, and that `unlike` does not hold."""
        for value in values:
            if self._thoughts or is_absent(value):
                continue
            text = thoughts_text(_decode(value))
            if text.strip() and not (len(unlike) and text.strip() in thoughts_text(_decode(unlike))):
                self._thoughts.append(text)

    def _formed_content(self, content: msgspec.Raw) -> msgspec.Raw:
        """Take thoughts, calls and results out of a list of parts, and return the rest."""
        items = _raw_parts.decode(content)
        parts = [without_nulls(_decode(item)) for item in items]
        if not all(isinstance(part, (str, dict)) for part in parts):
            return content
        for part, raw in zip(parts, items, strict=True):
            self._take_part({"type": "text", "text": part} if isinstance(part, str) else part, raw)
        return _encode(self._parts if self._parts or not items else "")

    def _take_part(self, part: Part, raw: msgspec.Raw) -> None:
        kind = part.get("type")
        kind = kind if kind is None or isinstance(kind, str) else ""
        call = part.get("functionCall") or part.get("function_call")
        result = part.get("functionResponse") or part.get("function_response")
        typed = isinstance(kind, str)  # Bedrock's parts have no type
        if (
            (typed and kind in _THOUGHT_TYPES)
            or part.get("thought") is True
            or (not typed and ("reasoningContent" in part or "reasoning_content" in part))
        ):
            self._thoughts.append(thoughts_text(part))
        elif isinstance(kind, str) and _SERVER_CALL.fullmatch(kind):
            self._calls.append(Call())
        elif not typed and isinstance(part.get("toolUse"), dict):
            self._add_call(_fields.decode(raw)["toolUse"], filled=_has_null(raw))
        elif not typed and isinstance(part.get("toolResult"), dict):
            self._results.append(self._result(part["toolResult"]))
        elif kind in _CALL_TYPES:
            self._add_call(raw, filled=_has_null(raw))
        elif isinstance(call, dict):
            fields = _fields.decode(raw)
            self._add_call(fields.get("functionCall") or fields["function_call"], filled=_has_null(raw))
        elif kind in _RESULT_TYPES:
            self._results.append(self._result(part))
        elif isinstance(result, dict):
            self._results.append(self._result({"id": result.get("id"), "content": result.get("response"), **result}))
        elif kind in _TEXT_TYPES or (kind is None and isinstance(part.get("text"), str)):
            if isinstance(part.get("text"), str):  # a text of null is none
                self._parts.append({**part, "type": "text"})
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            self._parts.append({"type": "text", "text": part["refusal"]})
        else:
            self._parts.append(self._image_part(part) or part)

    def _add_call(self, raw: msgspec.Raw, *, filled: bool) -> None:
        call = _call(_any_call.decode(raw))
        if filled and bytes(call.function.arguments)[:1] == b"{":
            call.function.arguments = _encode(without_null_fields(call.function.arguments))
        self._calls.append(call)

    def _image_part(self, part: Part) -> Part | None:
        """Return an image's part in this project's form, its file or address under `image`; None for no image."""
        kind = part.get("type")
        if kind is None and not _TYPELESS_IMAGES.isdisjoint(part):
            kind = "image"
        if kind not in ("image", "image_url", "input_image"):
            return None
        address = image_address(part)
        if address is None and part.keys() == {"type"}:
            address = next(self._images, None)
        return None if address is None else {"type": "image", "image": address}

    def _result(self, part: Part) -> Message:
        content = part.get("content", part.get("output"))
        if isinstance(content, list):
            blocks = [block for each in content if (block := self._result_block(each)) is not None]
            texts = [each.get("text") for each in blocks if isinstance(each, dict)]
            all_texts = all(isinstance(each, dict) and isinstance(each.get("text"), str) for each in blocks)
            content = "\n".join(map(str, texts)) if all_texts else blocks
        elif content is not None and not isinstance(content, str):
            content = msgspec.json.encode(content).decode()
        ids = ("tool_use_id", "tool_call_id", "call_id", "toolUseId", "id")
        named = next((part[key] for key in ids if part.get(key)), None)
        name = part.get("name")
        return Message(
            "tool",
            _encode(content or ""),
            tool_call_id=_encode(named) if named else NOTHING,
            name=_encode(name) if name else NOTHING,
        )

    def _result_block(self, block: Any) -> Any:
        """Return a part of a result in this project's form; None for a text of null."""
        if isinstance(block, str):
            return {"type": "text", "text": block}
        if not isinstance(block, dict):
            return block
        kind = block.get("type")
        if isinstance(kind, str) and kind in _TEXT_TYPES:
            return {**block, "type": "text"} if isinstance(block.get("text"), str) else None
        if kind is None and block.keys() == {"json"}:  # Bedrock's
            return {"type": "text", "text": msgspec.json.encode(block["json"]).decode()}
        return self._image_part(block) or block

    def _responses_item(self) -> Message | None:
        """Return an item of OpenAI's Responses that is no message: a call, a result, thoughts."""
        turn = self._turn
        if _is_analysis(turn) and is_absent(turn.tool_calls):
            marked = isinstance(turn, RecordedMessage) and is_marked(turn)
            text = thoughts_text(_decode(turn.content)) if len(turn.content) else ""
            return _Item(
                "assistant", _encode(""), reasoning_content=_encode(text), weight=_NOT_LEARNT if marked else NOTHING
            )
        if turn.role:
            return None
        kind = _decode(turn.type)
        if kind == "function_call":
            name = _decode(turn.name) if not is_absent(turn.name) else ""
            call_id = None if is_absent(turn.call_id) else _decode(turn.call_id)
            call = Call(call_id, "function", Function(str(name), turn.arguments))
            return _Item("assistant", _encode(""), _encode([call.to_json()]))
        if kind == "custom_tool_call":  # its input is text, not arguments
            return _Item("assistant", _encode(""), _encode([Call().to_json()]))
        if kind in ("function_call_output", "custom_tool_call_output"):
            output = None if is_absent(turn.output) else _decode(turn.output)
            named = None if is_absent(turn.call_id) else _decode(turn.call_id)
            return self._result({"call_id": named, "output": output})
        values = (turn.content, turn.summary)
        text = next((text for value in values if len(value) and (text := thoughts_text(_decode(value)))), "")
        return _Item("assistant", _encode(""), reasoning_content=_encode(text))


def _has_null(part: msgspec.Raw) -> bool:
    """Return whether a part has a null field: a table's writer has filled in what other parts have."""
    return any(map(is_absent, _fields.decode(part).values()))


def _joined_items(turns: list[Message]) -> list[Message]:
    """Return messages with items of one answer joined: thoughts with what follows, calls with what is before."""
    joined: list[Message] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is not None and _are_one_answer(before, turn):
            calls = [*_calls_of(before), *_calls_of(turn)]
            is_item = isinstance(before, _Item) and isinstance(turn, _Item)
            joined[-1] = (_Item if is_item else Message)(
                "assistant",
                before.content if isinstance(turn, _Item) else turn.content,
                _encode(calls) if calls else NOTHING,
                name=turn.name or before.name,
                reasoning_content=before.reasoning_content,
                weight=turn.weight or before.weight,
                stop_text=turn.stop_text or before.stop_text,
            )
        else:
            joined.append(turn)
    return joined


def _are_one_answer(before: Message, turn: Message) -> bool:
    """Return whether an item goes on with the answer that the item or the message before it began."""
    if before.role != "assistant" or turn.role != "assistant" or len(turn.reasoning_content):
        return False
    return isinstance(turn, _Item) or (isinstance(before, _Item) and not len(before.tool_calls))


def _calls_of(turn: Message) -> list[msgspec.Raw]:
    return _raw_parts.decode(turn.tool_calls) if len(turn.tool_calls) else []


def _present(value: msgspec.Raw) -> msgspec.Raw:
    return NOTHING if is_absent(value) else value


def image_address(part: Part) -> str | None:
    """Return the path, URL or data URI by which a part names its image, in any producer's form."""
    for key in ("image", "image_url", "url", "path"):
        value = part.get(key)
        value = (value.get("url") or value.get("path")) if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    source = part.get("source")
    for data in (source, part.get("inlineData"), part.get("inline_data"), part):
        encoded = (data.get("data") or data.get("base64")) if isinstance(data, dict) else None
        if isinstance(data, dict) and isinstance(encoded, str):
            names = ("media_type", "mime_type", "mimeType")
            kind = next((data[name] for name in names if isinstance(data.get(name), str)), "image/png")
            return f"data:{kind};base64,{encoded}"
    url = source.get("url") if isinstance(source, dict) else None
    return url if isinstance(url, str) else None


class OpenCalls(NamedTuple):
    """Tool calls and results of a conversation that have no counterpart."""

    unanswered: int
    """Calls without a result; those of the last turn too."""
    stray: int
    """Results that no call asked for."""


def open_calls(turns: list[Message]) -> OpenCalls:
    """Return what has no counterpart in messages of the one form.

    Calls and results pair by id; those without one in the order of their turns.
    """
    pairing = CallPairing()
    for turn in turns:
        if turn.role == "assistant" and len(turn.tool_calls):
            pairing.call(call_ids(turn.tool_calls))
        elif turn.role == "tool":
            pairing.answer(turn.tool_call_id)
    return pairing.open()


class CallPairing:
    """Pairs calls and their results, met in the order of their turns."""

    def __init__(self) -> None:
        self._pending: list[Any] = []
        self._stray = 0

    def call(self, ids: Iterable[Any]) -> None:
        """Take the ids of a turn's calls."""
        self._pending += ids

    def answer(self, tool_call_id: msgspec.Raw) -> None:
        """Take a result."""
        named = None if is_absent(tool_call_id) else _decode(tool_call_id)
        for place, each in enumerate(self._pending):
            # A result without an id answers the first call, a call without one takes the first result.
            if named is None or each is None or each == named:
                del self._pending[place]
                return
        self._stray += 1

    def open(self) -> OpenCalls:
        """Return what has no counterpart."""
        return OpenCalls(len(self._pending), self._stray)


def call_ids(tool_calls: msgspec.Raw) -> list[Any]:
    """Return the ids of a turn's calls; None for those without one."""
    return [call.id for call in _read_calls(tool_calls)]


def _read_calls(value: msgspec.Raw) -> list[Call]:
    try:
        return _calls.decode(value)
    except msgspec.MsgspecError:
        return formed_calls(value)
