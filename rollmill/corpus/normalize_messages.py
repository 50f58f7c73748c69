"""Normalization of messages: reasoning, tool calls and results of all producers, brought into the form of `Message`.

Read are OpenAI's chat completions, old (`function_call`, role `function`) and new, and items of its Responses API;
LangChain's messages; Anthropic's, Bedrock's and LangChain's parts and calls; Gemini's `parts`; the names that servers
have for reasoning, gpt-oss's channel of it; and the fields by which producers exclude a turn from training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from rollmill.corpus.content_parts import (
    REASONING_TYPES,
    TEXT_TYPES,
    Part,
    image_address,
    is_image,
    reasoning_text,
    remove_think_block,
)
from rollmill.corpus.loss_marks import is_marked, metadata_has_mark
from rollmill.corpus.message import (
    UNTRAINED,
    Message,
    PlainMessage,
    RecordedMessage,
    ResponsesItem,
    ScannedMessage,
    has_bookkeeping,
    remove_bookkeeping,
    with_all_fields,
)
from rollmill.corpus.message_roles import (
    ITEM_TYPES,
    MODEL_ROLES,
    ROLE_ALIASES,
    get_item_type,
    is_analysis,
    is_model_turn,
)
from rollmill.corpus.raw_json import (
    EMPTY_TEXT,
    NOTHING,
    NULL,
    QUOTE,
    decode,
    encode,
    has_null_field,
    is_absent,
    null_as_nothing,
    parse_object_text,
    raw_fields_decoder,
    raw_items_decoder,
    without_nulls,
)
from rollmill.corpus.responses_items import join_items
from rollmill.corpus.tool_calls import (
    Call,
    Function,
    any_call_decoder,
    normalize_call,
    normalize_calls,
    plain_calls_of,
    remove_null_arguments,
)
from rollmill.corpus.truncation import is_cut_off_turn


class _SentExtra(msgspec.Struct):
    """The arguments of calls as later requests repeated them, which our agents record in `extra`."""

    sent_arguments: msgspec.Raw = NOTHING


class _NestedFields(msgspec.Struct):
    """Fields that LangChain and LiteLLM keep in an object of their own beside a message's fields."""

    reasoning_content: msgspec.Raw = NOTHING
    tool_calls: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING


_sent_extra_decoder = msgspec.json.Decoder(_SentExtra)
_nested_fields_decoder = msgspec.json.Decoder(_NestedFields)
_STOP_SEQUENCE = b'"stop_sequence"'
"""Anthropic's stop reason of an answer that a stop string ended."""
_NO_ROLE_OF_TEXT = frozenset({"", *ROLE_ALIASES})
_REASONING_FIELDS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "reasoning_text",
    "thinking_blocks",
    "reasoning_details",
)
_REPEATED_REASONING_FIELDS = ("thought", "thoughts", "analysis")
"""Fields in which agents also repeat a part of the content."""
_THINK_TAG, _LONGEST_OPENING = b"<think>", 100
_RESULT_TYPES = frozenset({"tool_result", "function_call_output"})
_CALL_TYPES = frozenset({"tool_use", "tool_call", "function_call"})
_SERVER_CALL = re.compile(r"(?:server|mcp)_tool_use|\w+_tool_result|custom_tool_call")
"""Types of parts that have no normalized form: calls that a server ran during an answer, and calls with plain text."""


def normalize_messages(messages: Sequence[PlainMessage], images: Iterable[str] = ()) -> list[Message]:
    """Return messages in the normalized form, without bookkeeping.

    Messages that have this form already are changed in place. An earlier turn of the model that was cut off gets
    weight 0: with the next message after it, the model would learn to stop in the middle. Raises
    `msgspec.ValidationError` for a message without a role that is no item of Responses.

    Args:
        messages: messages of a record, with roles: see `with_roles`.
        images: paths of the images that parts `{"type": "image"}` refer to, in order.
    """
    # Most conversations are text only, and need no work.
    if all(map(_is_text, messages)):
        return list(messages)
    normalized: list[Message] = []
    paths = iter(images)
    cut_off: int | None = None  # index in `normalized` of the model's latest turn, if that was cut off
    has_items = False
    for number, turn in enumerate(messages):
        # A turn is known to be an earlier one only when the model's next turn comes.
        is_models = is_model_turn(turn)
        if is_models and cut_off is not None:
            normalized[cut_off].weight = UNTRAINED
        # The finish reason has to be read before it is removed as bookkeeping.
        is_cut = is_models and is_cut_off_turn(turn)
        _remove_bookkeeping(turn)
        if not turn.role and get_item_type(turn) not in ITEM_TYPES:
            raise msgspec.ValidationError(f"Object missing required field `role` - at `$.messages[{number}]`")
        has_items = has_items or not turn.role or is_analysis(turn)
        # `plain_calls_of` recognizes messages that have the normalized form: only the others are taken apart.
        calls = plain_calls_of(turn)
        if calls is None:
            normalized.extend(MessageNormalizer(with_all_fields(turn), paths).messages())
        else:
            if calls:
                turn.tool_calls = encode(calls)
            normalized.append(turn)
        if is_models:
            cut_off = len(normalized) - 1 if is_cut else None
    return join_items(normalized) if has_items else normalized


def _is_text(turn: PlainMessage) -> bool:
    """Return whether a message is a role and a text, and nothing else."""
    return (
        type(turn) is PlainMessage
        and turn.tool_calls is NOTHING
        and turn.reasoning_content is NOTHING
        and turn.weight is NOTHING
        and turn.finish_reason is NOTHING
        and turn.extra is NOTHING
        and turn.role not in _NO_ROLE_OF_TEXT
        and len(turn.content) > 0
        and memoryview(turn.content)[0] == QUOTE
    )


def _remove_bookkeeping(turn: PlainMessage) -> None:
    """Remove a message's bookkeeping, after the facts that training needs are taken from it."""
    if isinstance(turn, ScannedMessage):
        if has_bookkeeping(turn):
            _keep_training_facts(turn)
            remove_bookkeeping(turn)
        return
    if turn.extra is not NOTHING:
        _keep_sent_arguments(turn)
        turn.extra = NOTHING
    turn.finish_reason = NOTHING


def _keep_training_facts(turn: ScannedMessage) -> None:
    if turn.stop_reason is not NOTHING and bytes(turn.stop_reason) == _STOP_SEQUENCE and is_absent(turn.stop_text):
        turn.stop_text = EMPTY_TEXT
    if isinstance(turn, RecordedMessage) and metadata_has_mark(parse_object_text(turn.metadata)):
        turn.weight = UNTRAINED
    _keep_sent_arguments(turn)


def _keep_sent_arguments(turn: PlainMessage) -> None:
    extra = bytes(turn.extra)
    if b'"sent_arguments"' in extra and extra[:1] == b"{":
        turn.sent_arguments = _sent_extra_decoder.decode(extra).sent_arguments


class MessageNormalizer:
    """Brings one message into the normalized form.

    Args:
        turn: the message.
        images: paths of images; each part `{"type": "image"}` takes the next one.
    """

    def __init__(self, turn: ScannedMessage, images: Iterator[str]) -> None:
        self._turn = turn
        self._images = images
        self._reasoning: list[str] = []
        self._calls: list[Call] = []
        self._results: list[Message] = []
        self._parts: list[Part] = []
        # A table's writer gives every message every field: one null field tells that others are null for that reason.
        extras = (turn.tool_calls, turn.tool_call_id, turn.name, turn.reasoning_content, turn.weight)
        self._from_table = any(len(value) == 4 and bytes(value) == NULL for value in extras)

    def messages(self) -> list[Message]:
        """Return the message, after the tool results that its content has as parts."""
        turn = self.turn()
        has_content = self._parts or not self._results
        return [*self._results, *([turn] if has_content else [])]

    def turn(self) -> Message:
        """Return the message alone."""
        turn = self._turn
        item = self._responses_item()
        if item is not None:
            return item
        # Gemini has `parts` in place of `content`.
        content = turn.content if not is_absent(turn.content) or is_absent(turn.parts) else turn.parts
        if bytes(memoryview(content)[:1]) == b"[":
            content = self._normalize_content(content)
        self._take_fields()
        role = ROLE_ALIASES.get(turn.role, turn.role)
        # Reasoning may stand both in a field and in a part: equal text counts once.
        reasoning = "\n".join(dict.fromkeys(filter(str.strip, self._reasoning)))
        if reasoning and _THINK_TAG in bytes(content)[:_LONGEST_OPENING] and memoryview(content)[0] == QUOTE:
            content = encode(remove_think_block(decode(content), reasoning))
        return Message(
            role,
            content,
            encode([call.to_json() for call in self._calls]) if self._calls else NOTHING,
            null_as_nothing(turn.tool_call_id) or null_as_nothing(turn.call_id),
            null_as_nothing(turn.name),
            encode(reasoning) if reasoning else NOTHING,
            UNTRAINED if role == "assistant" and isinstance(turn, RecordedMessage) and is_marked(turn) else NOTHING,
            null_as_nothing(turn.sent_arguments) if self._calls else NOTHING,
            null_as_nothing(turn.stop_text) if role == "assistant" else NOTHING,
        )

    def _take_fields(self) -> None:
        """Take reasoning and calls from the message's fields, and from the objects that LangChain nests in it."""
        turn = self._turn
        if turn.role and turn.role not in MODEL_ROLES:
            return
        objects = (turn.additional_kwargs, turn.provider_specific_fields)
        nested = [_nested_fields_decoder.decode(value) for value in objects if bytes(memoryview(value)[:1]) == b"{"]
        values = [
            *(getattr(turn, name) for name in _REASONING_FIELDS),
            *(fields.reasoning_content for fields in nested),
        ]
        self._take_reasoning(values)
        # Agents copy a part of the content to these fields: only other text in them is reasoning.
        if not self._reasoning:
            self._take_reasoning([getattr(turn, name) for name in _REPEATED_REASONING_FIELDS], unless_in=turn.content)
        # The same calls may be in several fields: the first field that has any counts.
        for value in (turn.tool_calls, *(fields.tool_calls for fields in nested)):
            if not self._calls and not is_absent(value):
                self._calls = normalize_calls(value, from_table=self._from_table)
        for value in (turn.function_call, *(fields.function_call for fields in nested)):
            if not self._calls and _is_filled_object(value):
                self._calls = [normalize_call(any_call_decoder.decode(value))]
        if not is_absent(turn.invalid_tool_calls):  # LangChain's: calls whose arguments are no JSON
            known = {call.id for call in self._calls}
            self._calls += [call for call in normalize_calls(turn.invalid_tool_calls) if call.id not in known]

    def _take_reasoning(self, values: Iterable[msgspec.Raw], unless_in: msgspec.Raw = NOTHING) -> None:
        """Take the first reasoning that is not blank, and that the content `unless_in` does not contain."""
        for value in values:
            if self._reasoning or is_absent(value):
                continue
            text = reasoning_text(decode(value))
            if text.strip() and not (len(unless_in) and text.strip() in reasoning_text(decode(unless_in))):
                self._reasoning.append(text)

    def _normalize_content(self, content: msgspec.Raw) -> msgspec.Raw:
        """Take reasoning, calls and results out of a list of parts, and return the other parts."""
        items = raw_items_decoder.decode(content)
        parts = [without_nulls(decode(item)) for item in items]
        if not all(isinstance(part, (str, dict)) for part in parts):
            return content
        for part, raw in zip(parts, items, strict=True):
            self._take_part({"type": "text", "text": part} if isinstance(part, str) else part, raw)
        return encode(self._parts if self._parts or not items else "")

    def _take_part(self, part: Part, raw: msgspec.Raw) -> None:
        """Take one part of a content.

        Args:
            part: the part, decoded, without null fields.
            raw: its JSON, from which calls are read: their arguments keep their spelling.
        """
        kind = part.get("type")
        kind = kind if kind is None or isinstance(kind, str) else ""
        call = part.get("functionCall") or part.get("function_call")
        result = part.get("functionResponse") or part.get("function_response")
        typed = isinstance(kind, str)  # Bedrock's parts have no type
        if (
            (typed and kind in REASONING_TYPES)
            or part.get("thought") is True
            or (not typed and ("reasoningContent" in part or "reasoning_content" in part))
        ):
            self._reasoning.append(reasoning_text(part))
        elif isinstance(kind, str) and _SERVER_CALL.fullmatch(kind):
            # A call without a name makes exports drop the row, which would otherwise lose a part of the answer.
            self._calls.append(Call())
        elif not typed and isinstance(part.get("toolUse"), dict):
            self._add_call(raw_fields_decoder.decode(raw)["toolUse"], from_table=has_null_field(raw))
        elif not typed and isinstance(part.get("toolResult"), dict):
            self._results.append(self._result(part["toolResult"]))
        elif kind in _CALL_TYPES:
            self._add_call(raw, from_table=has_null_field(raw))
        elif isinstance(call, dict):
            fields = raw_fields_decoder.decode(raw)
            self._add_call(fields.get("functionCall") or fields["function_call"], from_table=has_null_field(raw))
        elif kind in _RESULT_TYPES:
            self._results.append(self._result(part))
        elif isinstance(result, dict):
            self._results.append(self._result({"id": result.get("id"), "content": result.get("response"), **result}))
        elif kind in TEXT_TYPES or (kind is None and isinstance(part.get("text"), str)):
            if isinstance(part.get("text"), str):  # a part whose text is null is none
                self._parts.append({**part, "type": "text"})
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            self._parts.append({"type": "text", "text": part["refusal"]})
        else:
            self._parts.append(self._image_part(part) or part)

    def _add_call(self, raw: msgspec.Raw, *, from_table: bool) -> None:
        call = normalize_call(any_call_decoder.decode(raw))
        if from_table:
            remove_null_arguments(call)
        self._calls.append(call)

    def _image_part(self, part: Part) -> Part | None:
        """Return an image's part as `{"type": "image", "image": path or address}`; None for no image."""
        if not is_image(part):
            return None
        address = image_address(part)
        if address is None and part.keys() == {"type"}:
            address = next(self._images, None)
        return None if address is None else {"type": "image", "image": address}

    def _result(self, part: Part) -> Message:
        """Return a tool's result as a message."""
        content = part.get("content", part.get("output"))
        # Chat templates expect a result's content as text: parts that are all text become one.
        if isinstance(content, list):
            blocks = [block for each in content if (block := self._result_block(each)) is not None]
            texts = [each.get("text") for each in blocks if isinstance(each, dict)]
            all_texts = all(isinstance(each, dict) and isinstance(each.get("text"), str) for each in blocks)
            content = "\n".join(map(str, texts)) if all_texts else blocks
        elif content is not None and not isinstance(content, str):
            content = msgspec.json.encode(content).decode()
        id_keys = ("tool_use_id", "tool_call_id", "call_id", "toolUseId", "id")
        call_id = next((part[key] for key in id_keys if part.get(key)), None)
        name = part.get("name")
        return Message(
            "tool",
            encode(content or ""),
            tool_call_id=encode(call_id) if call_id else NOTHING,
            name=encode(name) if name else NOTHING,
        )

    def _result_block(self, block: Any) -> Any:
        """Return a part of a result in the normalized form; None for a text that is null."""
        if isinstance(block, str):
            return {"type": "text", "text": block}
        if not isinstance(block, dict):
            return block
        kind = block.get("type")
        if isinstance(kind, str) and kind in TEXT_TYPES:
            return {**block, "type": "text"} if isinstance(block.get("text"), str) else None
        if kind is None and block.keys() == {"json"}:  # Bedrock's
            return {"type": "text", "text": msgspec.json.encode(block["json"]).decode()}
        return self._image_part(block) or block

    def _responses_item(self) -> Message | None:
        """Return an item of OpenAI's Responses, or gpt-oss's reasoning, as a message; None for any other message."""
        turn = self._turn
        if is_analysis(turn) and is_absent(turn.tool_calls):
            marked = isinstance(turn, RecordedMessage) and is_marked(turn)
            text = reasoning_text(decode(turn.content)) if len(turn.content) else ""
            weight = UNTRAINED if marked else NOTHING
            return ResponsesItem("assistant", EMPTY_TEXT, reasoning_content=encode(text), weight=weight)
        if turn.role:
            return None
        kind = decode(turn.type)
        call_id = None if is_absent(turn.call_id) else decode(turn.call_id)
        if kind == "function_call":
            name = decode(turn.name) if not is_absent(turn.name) else ""
            call = Call(call_id, "function", Function(str(name), turn.arguments))
            return ResponsesItem("assistant", EMPTY_TEXT, encode([call.to_json()]))
        if kind == "custom_tool_call":  # its input is text, not arguments
            return ResponsesItem("assistant", EMPTY_TEXT, encode([Call().to_json()]))
        if kind in ("function_call_output", "custom_tool_call_output"):
            output = None if is_absent(turn.output) else decode(turn.output)
            return self._result({"call_id": call_id, "output": output})
        values = (turn.content, turn.summary)
        text = next((text for value in values if len(value) and (text := reasoning_text(decode(value)))), "")
        return ResponsesItem("assistant", EMPTY_TEXT, reasoning_content=encode(text))


def _is_filled_object(value: msgspec.Raw) -> bool:
    """Return whether a value is an object with a field that is not null."""
    return bytes(value)[:1] == b"{" and not all(map(is_absent, raw_fields_decoder.decode(value).values()))
