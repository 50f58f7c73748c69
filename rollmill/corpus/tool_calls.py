"""Tool calls of messages: OpenAI's form, and calls of other producers brought into it.

From the fastest to the one that accepts everything: `plain_calls_of` decodes the calls of a message that needs no
conversion, `decode_plain_calls` a list of such calls, `decode_normalized_calls` those of a message that was normalized,
and `normalize_calls` converts calls of any form.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from rollmill.corpus.message import Message, PlainMessage, has_normalized_fields
from rollmill.corpus.message_roles import ROLE_ALIASES
from rollmill.corpus.raw_json import (
    NOTHING,
    NULL,
    QUOTE,
    decode,
    encode,
    is_absent,
    raw_items_decoder,
    without_null_fields,
)


class Function(msgspec.Struct, omit_defaults=True):
    """The function that a call names, and its arguments."""

    name: str = ""
    arguments: msgspec.Raw = NOTHING
    """JSON: a string, as servers send it, or an object."""


class Call(msgspec.Struct, omit_defaults=True):
    """One tool call in OpenAI's form."""

    id: Any = None
    type: str = "function"
    function: Function = msgspec.field(default_factory=Function)

    def to_json(self, empty: Literal["object", "text"] = "object") -> dict[str, Any]:
        """Return the call as it is written, without an id if it has none.

        Missing arguments become an empty object, or with `empty="text"` a string that contains one. The type is always
        `function`: no other type has a name and JSON arguments.
        """
        with_id = {} if self.id in (None, "") else {"id": self.id}
        empty_arguments = msgspec.Raw(b"{}" if empty == "object" else b'"{}"')
        arguments = empty_arguments if is_absent(self.function.arguments) else self.function.arguments
        return {**with_id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class PlainFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The function of a `PlainCall`."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    arguments: msgspec.Raw
    """JSON: a string, as servers send it, or an object."""


class PlainCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One tool call that has OpenAI's form already, and no other fields, which holds for nearly all calls."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    type: Literal["function"]
    function: PlainFunction


class AnyCall(msgspec.Struct):
    """A call in the form of any producer."""

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


class _ArgumentFields(msgspec.Struct):
    """Other names of a function's arguments."""

    args: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING


any_call_decoder = msgspec.json.Decoder(AnyCall)
_plain_calls_decoder = msgspec.json.Decoder(Annotated[list[PlainCall], msgspec.Meta(min_length=1)])
_calls_decoder = msgspec.json.Decoder(list[Call])
_any_calls_decoder = msgspec.json.Decoder(list[AnyCall])
_function_decoder = msgspec.json.Decoder(Function)
_argument_fields_decoder = msgspec.json.Decoder(_ArgumentFields)
_NO_CALLS: list[PlainCall] = []
_TEXT_INPUT_TYPES = ("custom", "custom_tool_call")
"""Types of calls whose input is free text, not JSON arguments: they are not supported."""
_NO_ARGUMENTS = (b'""', NULL)
_LONGEST_NO_ARGUMENTS = max(map(len, _NO_ARGUMENTS))


def plain_calls_of(turn: PlainMessage) -> list[PlainCall] | None:
    """Return the tool calls of a message that is in normalized form already, apart from bookkeeping fields.

    Returns an empty list for such a message without calls; None if the message, or a call, may have another form, and
    has to be normalized.
    """
    content = turn.content
    is_text = len(content) > 0 and memoryview(content)[0] == QUOTE
    if turn.tool_calls is NOTHING:
        is_normalized = is_text and turn.role not in ROLE_ALIASES and has_normalized_fields(turn)
        return _NO_CALLS if is_normalized else None
    is_normalized = (
        turn.role == "assistant"
        and turn.tool_call_id is NOTHING
        and turn.name is NOTHING
        # Servers send a null content beside calls. Without calls it is rare, and left to the normalization.
        and (is_text or is_absent(content))
        and has_normalized_fields(turn)
    )
    return decode_plain_calls(turn.tool_calls) if is_normalized else None


def decode_plain_calls(tool_calls: msgspec.Raw) -> list[PlainCall] | None:
    """Return calls that have OpenAI's form, with arguments and without other fields; None if any call has not."""
    try:
        calls: list[PlainCall] = _plain_calls_decoder.decode(tool_calls)
    except msgspec.MsgspecError:
        return None
    for call in calls:
        # The length is compared first: copying long arguments to compare them would take most of the time.
        if len(call.function.arguments) <= _LONGEST_NO_ARGUMENTS and bytes(call.function.arguments) in _NO_ARGUMENTS:
            return None
    return calls


def decode_normalized_calls(tool_calls: msgspec.Raw) -> list[Call]:
    """Return the calls of a normalized message.

    A list that does not decode as OpenAI's form is normalized once more. But calls of another form may decode, into
    calls without a name: use `normalize_calls` for calls that were not normalized.
    """
    try:
        return _calls_decoder.decode(tool_calls)
    except msgspec.MsgspecError:
        return normalize_calls(tool_calls)


def normalize_calls(value: msgspec.Raw, *, from_table: bool = False) -> list[Call]:
    """Return calls of any producer in OpenAI's form.

    An item that cannot have that form (without a name, of a type with free text) becomes a nameless call, for which
    exports drop the row: see `has_nameless_call`. If the list cannot be decoded, one nameless call stands for all.
    With `from_table`, null fields that the table's writer (Parquet, Arrow) added to the arguments are removed.
    """
    text = bytes(value)
    if text[:1] == b'"':  # a string that contains JSON, as columns of tables have it
        # A lone surrogate, which UTF-8 cannot encode, is replaced.
        text = msgspec.json.decode(text).strip().encode("utf-8", "replace")
    if not text or text in (NULL, b"{}"):
        return []
    try:
        # A single call may stand where a list of calls is expected.
        decoded = _any_calls_decoder.decode(text if text[:1] == b"[" else b"[" + text + b"]")
        calls = [normalize_call(each) for each in decoded]
    except msgspec.MsgspecError:
        return [Call()]
    if from_table:
        for call in calls:
            remove_null_arguments(call)
    return calls


def normalize_call(call: AnyCall) -> Call:
    """Return one call in OpenAI's form; without a name if it cannot have it."""
    if call.type in _TEXT_INPUT_TYPES:
        return Call()  # without an id, too: the row is dropped anyway
    function = Function(call.name if isinstance(call.name, str) else "")
    # OpenAI nests the name in an object, others have it beside the arguments, or as the value of `function` itself.
    if bytes(call.function)[:1] == b"{":
        function = _function_decoder.decode(call.function)
    elif bytes(call.function)[:1] == b'"' and not function.name:
        function = Function(decode(call.function))
    if is_absent(function.arguments):
        is_object = bytes(call.function)[:1] == b"{"
        inner = _argument_fields_decoder.decode(call.function) if is_object else _ArgumentFields()
        values = (call.arguments, call.args, call.input, call.parameters, inner.args, inner.input, inner.parameters)
        function.arguments = next((value for value in values if not is_absent(value)), NOTHING)
    if bytes(function.arguments) in _NO_ARGUMENTS:  # some servers send an empty string for a call without arguments
        function.arguments = NOTHING
    # An item of the Responses API has both: its result refers to `call_id`, and `id` is that of the item.
    return Call(call.call_id or call.id or call.tool_use_id, "function", function)


def remove_null_arguments(call: Call) -> None:
    """Remove null fields from a call's arguments, which a table's writer has added."""
    if bytes(call.function.arguments)[:1] == b"{":
        call.function.arguments = encode(without_null_fields(call.function.arguments))


def has_nameless_call(turn: Message) -> bool:
    """Return whether a normalized turn has a call without a name: one that could not be read as a call."""
    # A cheap test first, for JSON as msgspec writes it: `Call.to_json` writes an empty name, too.
    if len(turn.tool_calls) == 0 or b'"name":""' not in bytes(turn.tool_calls):
        return False
    return any(not call.function.name for call in decode_normalized_calls(turn.tool_calls))


def call_ids(tool_calls: msgspec.Raw) -> list[Any]:
    """Return the ids of a turn's calls; None for calls without one."""
    return [call.id for call in decode_normalized_calls(tool_calls)]


def calls_as_json(turn: Message) -> list[msgspec.Raw]:
    """Return the JSON of each call of a normalized turn."""
    return raw_items_decoder.decode(turn.tool_calls) if len(turn.tool_calls) else []
