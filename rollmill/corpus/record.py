"""One record of a file: its few scalars, and its messages with their contents left as JSON text.

A trajectory is tens of kilobytes, and most questions about it concern a few numbers. So contents stay the JSON text
that they are (`msgspec.Raw`), and are decoded only where they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

import msgspec
import orjson

from rollmill.corpus.content_parts import image_address
from rollmill.corpus.loss_marks import has_mark, metadata_has_mark
from rollmill.corpus.message import UNTRAINED, Message, PlainMessage, RecordedMessage
from rollmill.corpus.message_roles import is_model_turn, with_roles
from rollmill.corpus.normalize_messages import normalize_messages
from rollmill.corpus.raw_json import (
    EMPTY_TEXT,
    NOTHING,
    decode_raw_fields,
    is_absent,
    is_true,
    parse_raw_text,
    raw_items_decoder,
    without_null_fields,
)
from rollmill.corpus.tool_declarations import normalize_tools
from rollmill.corpus.truncation import has_cut_off_fields, is_cut_off_metadata, is_cut_off_turn
from rollmill.records import is_cut_off

UNREADABLE_ERRORS = (msgspec.MsgspecError, orjson.JSONDecodeError, UnicodeDecodeError, RecursionError)
"""Errors of reading a record's contents later: the scan decodes no more of them than the table needs."""

Turns = list[RecordedMessage] | str | None
"""A conversation, the text of its only message, or (in columns of tables) a conversation as JSON text."""

AnyTurns = Sequence[PlainMessage] | str | None
"""`Turns` with messages of any type."""


class Record(msgspec.Struct, gc=False):
    """A record's fields: scalars of any JSON type, since producers write any; JSON text where they may be large."""

    instance_id: Any = None
    sample_id: Any = None
    seed: Any = None
    reward: Any = None
    success: Any = None
    speedup: Any = None
    exit_status: Any = None
    error: Any = None
    finish_reason: Any = None
    stop_reason: Any = None
    model_calls: Any = None
    latency_s: Any = None
    usage: Any = None
    messages: Turns = None
    trajectory: Turns = None
    prompt: Turns = None
    completion: msgspec.Raw = NOTHING
    """JSON of `Turns`: a text keeps its spelling, whose bytes are hashed."""
    reasoning_content: msgspec.Raw = NOTHING
    reasoning: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    tool_calls: msgspec.Raw = NOTHING
    stop_text: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    functions: msgspec.Raw = NOTHING
    chat_template_kwargs: msgspec.Raw = NOTHING
    images: msgspec.Raw = NOTHING
    tokens: msgspec.Raw = NOTHING
    truncated: msgspec.Raw = NOTHING
    is_truncated: msgspec.Raw = NOTHING
    train: msgspec.Raw = NOTHING
    trainable: msgspec.Raw = NOTHING
    is_trainable: msgspec.Raw = NOTHING
    exclude_from_training: msgspec.Raw = NOTHING
    is_train: msgspec.Raw = NOTHING
    do_not_train: msgspec.Raw = NOTHING
    training: msgspec.Raw = NOTHING
    weight: msgspec.Raw = NOTHING
    loss_mask: msgspec.Raw = NOTHING
    masked: msgspec.Raw = NOTHING
    is_masked: msgspec.Raw = NOTHING
    should_train: msgspec.Raw = NOTHING
    finish_reason_of_gemini: msgspec.Raw = msgspec.field(default=NOTHING, name="finishReason")
    stop_reason_of_bedrock: msgspec.Raw = msgspec.field(default=NOTHING, name="stopReason")
    done_reason: msgspec.Raw = NOTHING
    stop_type: msgspec.Raw = NOTHING
    finish_details: msgspec.Raw = NOTHING
    incomplete_details: msgspec.Raw = NOTHING
    status: msgspec.Raw = NOTHING
    choices: msgspec.Raw = NOTHING
    candidates: msgspec.Raw = NOTHING
    response: msgspec.Raw = NOTHING
    response_metadata: msgspec.Raw = NOTHING
    generation_info: msgspec.Raw = NOTHING
    meta_info: msgspec.Raw = NOTHING
    details: msgspec.Raw = NOTHING
    verdict: msgspec.Raw = NOTHING
    evaluation_info: msgspec.Raw = NOTHING
    metadata: msgspec.Raw = NOTHING

    def conversation(self) -> list[Message] | None:
        """Return all messages in the normalized form, the completion last; None where there are none.

        Call it once: it removes bookkeeping from the record's messages.
        """
        recorded = self.recorded_messages()
        return None if recorded is None else normalize_messages(recorded, _image_paths(self.images))

    def recorded_messages(self) -> Sequence[PlainMessage] | None:
        """Return all messages as the file has them, the completion last with the reasoning and calls beside it."""
        turns: AnyTurns
        # Whichever of the fields a producer uses, `messages` first; a prompt counts only without both.
        turns, name = (self.messages, "messages") if self.messages is not None else (self.trajectory, "trajectory")
        if isinstance(turns, str):
            parsed = _parse_turns(turns)
            if isinstance(parsed, str):
                raise msgspec.ValidationError(f"Expected `array | null`, got `str` - at `$.{name}`")
            turns = parsed
        if turns is None:
            prompt = _parse_turns(self.prompt)
            # A model may write a conversation as JSON: its answer is parsed only where the prompt is one, too.
            as_json = isinstance(self.prompt, str) and isinstance(prompt, list)
            turns = _as_turns(prompt, "user")
            answer = self._answer(as_json=as_json)
        else:
            answer = self._answer()
        turns = with_roles(turns) if isinstance(turns, list) else turns
        reasoning = self.recorded_reasoning()
        if answer is None and reasoning is None:
            return turns if isinstance(turns, list) else None
        # Reasoning alone, without an answer, needs a message to stand in.
        if answer is None and not (turns and turns[-1].role == "assistant"):
            answer = [PlainMessage("assistant", EMPTY_TEXT)]
        # Some producers repeat the last message as `completion`.
        is_repeated = answer is None or (
            turns and turns[-1].role == "assistant" and _same_content(turns[-1].content, answer[-1].content)
        )
        messages: list[PlainMessage] = list(turns or [])
        if not is_repeated:
            for turn in messages:
                # These are few-shot examples, or earlier answers: only the completion is trained on.
                if turn.role == "assistant":
                    turn.weight = UNTRAINED
            messages += answer or []
        if reasoning is not None and is_absent(messages[-1].reasoning_content):
            messages[-1].reasoning_content = reasoning
        if self._is_text():
            self._add_calls(messages[-1])
        return messages

    def _add_calls(self, answer: PlainMessage) -> None:
        """Add to the completion's message the calls recorded beside it, and the stop string that ended it."""
        if is_absent(answer.tool_calls):
            answer.tool_calls = self._calls()
        if self.stop_text is not NOTHING and not is_absent(self.stop_text):
            answer.stop_text = self.stop_text
        elif self.stop_reason == "stop_sequence":  # Anthropic's name for a stop string
            answer.stop_text = EMPTY_TEXT
        elif self.finish_reason == "stop" and _is_stop_string(self.stop_reason):
            answer.stop_text = msgspec.Raw(msgspec.json.encode(self.stop_reason))

    def _calls(self) -> msgspec.Raw:
        """Return the calls recorded beside the completion; older journals have them in their metadata."""
        calls = self.tool_calls
        if calls is NOTHING and len(self.metadata) > 2 and b'"tool_calls"' in bytes(self.metadata):
            calls = self.metadata_fields().get("tool_calls", NOTHING)
        return calls if len(calls) and memoryview(calls)[0] == _BRACKET else NOTHING

    def _answer(self, *, as_json: bool = False) -> Sequence[PlainMessage] | None:
        """Return the completion's messages; with `as_json` it may be a conversation as JSON text."""
        if (
            self.completion is NOTHING
            and self.prompt is not None
            and self.response
            and memoryview(self.response)[0] == _QUOTE
        ):
            self.completion = self.response  # some producers name the completion so
        completion = self.completion
        if completion is NOTHING:
            return None
        if memoryview(completion)[0] != _QUOTE:
            return None if is_absent(completion) else _completion(completion) or None
        turns = _parse_turns(msgspec.json.decode(completion, type=str)) if as_json else None
        return turns or None if isinstance(turns, list) else [PlainMessage("assistant", completion)]

    def _is_text(self) -> bool:
        """Return whether the completion is a text, not a list of messages."""
        return self.completion is not NOTHING and memoryview(self.completion)[0] == _QUOTE

    def recorded_reasoning(self) -> msgspec.Raw | None:
        """Return the reasoning recorded beside the completion; None where there is none."""
        values = (self.reasoning_content, self.reasoning, self.thinking)
        if values != _NO_REASONING:
            for value in values:
                if not is_absent(value) and bytes(value) != b'""':
                    return value
        if len(self.metadata) <= 2 or not any(name in bytes(self.metadata) for name in (b"reasoning", b"thinking")):
            return None
        fields = self.metadata_fields()
        # Beside messages alone, `metadata.reasoning` may be a judge's.
        names = ("reasoning_content", *(("reasoning", "thinking") if self._is_text() else ()))
        named = (fields.get(name, NOTHING) for name in names)
        return next((value for value in named if bytes(value)[:1] == b'"' and bytes(value) != b'""'), None)

    def drops_reasoning(self) -> bool:
        """Return whether each request left out the reasoning of earlier answers."""
        if len(self.metadata) <= 2 or b'"reasoning_dropped"' not in bytes(self.metadata):
            return False
        return is_true(self.metadata_fields().get("reasoning_dropped", NOTHING))

    def metadata_fields(self) -> dict[str, msgspec.Raw]:
        """Return the fields of `metadata`, an object or its JSON text; an empty dict where it is neither."""
        return decode_raw_fields(self.metadata)

    def request_field(self, name: Literal["tools", "chat_template_kwargs"]) -> msgspec.Raw:
        """Return the tools or template arguments of the rollout's requests, from the row or its metadata, parsed."""
        value: msgspec.Raw = getattr(self, name)
        if value is NOTHING and len(self.metadata) <= 2 and (name != "tools" or self.functions is NOTHING):
            return NOTHING
        if is_absent(value) and len(self.metadata) > 2 and name.encode() in bytes(self.metadata):
            value = self.metadata_fields().get(name, NOTHING)
        if name == "tools" and bytes(value) in (b"", b"null", b"[]"):
            return self._tools_of_functions()
        value = parse_raw_text(value)
        text = bytes(value)
        if name == "chat_template_kwargs":
            if text[:1] == b"{" and b"null" in text:  # null: a field that other rows of the table have
                value = msgspec.Raw(msgspec.json.encode(without_null_fields(value)))
            return value if text[:1] == b"{" and bytes(value)[1:-1].strip() else NOTHING
        return normalize_tools(text) if text[:1] == b"[" and text[1:-1].strip() else NOTHING

    def recorded_tokens(self) -> msgspec.Raw:
        """Return the location of the recorded tokens, from the row, or for a training row from its metadata."""
        if not is_absent(self.tokens) or len(self.metadata) <= 2 or b'"tokens"' not in bytes(self.metadata):
            return self.tokens
        return self.metadata_fields().get("tokens", NOTHING)

    def _tools_of_functions(self) -> msgspec.Raw:
        """Return the tools that OpenAI's older requests declare as `functions`."""
        text = bytes(parse_raw_text(self.functions))
        if text[:1] != b"[" or not text[1:-1].strip():
            return NOTHING
        functions = raw_items_decoder.decode(text)
        return normalize_tools(msgspec.json.encode([{"type": "function", "function": each} for each in functions]))

    def is_cut_off(self) -> bool:
        """Return whether the completion was cut off at a limit on tokens, by a field of the row or its last message."""
        if self.finish_reason is not None and _is_cut_off(self.finish_reason):
            return True
        if self.stop_reason is not None and _is_cut_off(self.stop_reason):
            return True
        if is_true(self.truncated) or is_true(self.is_truncated):
            return True
        values = _ending(self)
        if values != _NO_ENDING and has_cut_off_fields(
            dict(zip(_ENDING.values(), map(parse_raw_text, values), strict=True))
        ):
            return True
        if len(self.metadata) > 2 and is_cut_off_metadata(parse_raw_text(self.metadata)):
            return True
        return self.ends_cut_off()

    def ends_cut_off(self) -> bool:
        """Return whether the model's last message records that it was cut off; a text's finish reason is in the row."""
        if self._is_text():
            return False
        turns: AnyTurns = None
        if len(self.completion) and not is_absent(self.completion):
            turns = _completion(self.completion)
        else:
            turns = _parse_turns(self.messages if self.messages is not None else self.trajectory)
        for turn in reversed(with_roles(turns)) if isinstance(turns, list) else ():
            if is_model_turn(turn):
                return is_cut_off_turn(turn)
        return False

    def is_marked(self) -> bool:
        """Return whether the row as a whole is excluded from training."""
        return has_mark(self) or (len(self.metadata) > 2 and metadata_has_mark(parse_raw_text(self.metadata)))


def _is_cut_off(reason: object) -> bool:
    if isinstance(reason, str):
        return is_cut_off_word(reason)
    # Some servers write an object.
    return isinstance(reason, dict) and (is_cut_off(reason.get("type")) or is_cut_off(reason.get("reason")))


@lru_cache(256)
def is_cut_off_word(reason: str) -> bool:
    """Return the same as `is_cut_off`, cached: there are few reasons, and many rows."""
    return is_cut_off(reason)


_ENDING = {
    "finish_reason_of_gemini": "finishReason",
    "stop_reason_of_bedrock": "stopReason",
    "done_reason": "done_reason",
    "stop_type": "stop_type",
    "finish_details": "finish_details",
    "incomplete_details": "incomplete_details",
    "status": "status",
    "choices": "choices",
    "candidates": "candidates",
    "response": "response",
    "response_metadata": "response_metadata",
    "generation_info": "generation_info",
    "meta_info": "meta_info",
    "details": "details",
}
"""Fields of a record that tell how its answer ended, by the names of their attributes, with their names in files."""
_ending, _NO_ENDING = attrgetter(*_ENDING), (NOTHING,) * len(_ENDING)
_MODEL_ENDED = re.compile(
    r"(?:stop|eos|end_?turn|end|complete|finished|tool_(?:use|calls)|refusal|pause_turn|none|null)?\Z", re.I
)
"""Stop reasons by which a row records that the model ended the answer itself: any other is a stop string."""


def _is_stop_string(reason: Any) -> bool:
    """Return whether a stop reason is the stop string itself, as vLLM writes it."""
    return isinstance(reason, str) and not _MODEL_ENDED.match(reason)


def _completion(value: msgspec.Raw) -> list[PlainMessage]:
    """Return the messages of a completion that is no text. Raises `msgspec.ValidationError` where it has none."""
    try:
        turns = _turns_decoder.decode(value)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{message} - at `$.completion{path or '`'}") from None
    assert isinstance(turns, list)
    return list(with_roles(turns))


_QUOTE, _BRACKET = b'"['
_NO_REASONING = (NOTHING,) * 3
_messages = msgspec.json.Decoder(list[RecordedMessage])
_turns_decoder = msgspec.json.Decoder(Turns)


def _parse_turns(value: AnyTurns) -> AnyTurns:
    """Return the conversation that JSON text holds, as in columns of tables; any other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        turns = _messages.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    return turns if all(turn.role or len(turn.type) for turn in turns) else value


def _image_paths(images: msgspec.Raw) -> Iterator[str]:
    """Yield the paths or addresses of a row's images, in order, as multimodal training files list them."""
    listed = msgspec.json.decode(images) if bytes(memoryview(images)[:1]) == b"[" else []
    for image in listed:
        address = image_address(image) if isinstance(image, dict) else image
        if not isinstance(address, str):
            return  # the images after it would be taken for the wrong parts
        yield address


def _same_content(first: msgspec.Raw, second: msgspec.Raw) -> bool:
    """Return whether two contents are equal, however they are spelt in JSON."""
    if first == second:
        return True
    return bool(bytes(first) and bytes(second)) and bool(msgspec.json.decode(first) == msgspec.json.decode(second))


def _as_turns(value: AnyTurns, role: str) -> Sequence[PlainMessage] | None:
    """Return messages, or a text as the only message with this role; None for an empty or missing value."""
    if isinstance(value, str):
        return [PlainMessage(role, msgspec.Raw(orjson.dumps(value)))]
    return value or None


PlainTurns = list[PlainMessage] | str | None


class _PlainRecord(Record, gc=False):
    """A record whose messages are all plain, as in most files: decoding finds that out, and takes less time."""

    messages: PlainTurns = None  # type: ignore[assignment]
    trajectory: PlainTurns = None  # type: ignore[assignment]
    prompt: PlainTurns = None  # type: ignore[assignment]


_decoder, _plain_decoder = msgspec.json.Decoder(Record), msgspec.json.Decoder(_PlainRecord)


def decode_record(line: bytes | memoryview) -> Record:
    """Return the record of a JSON object.

    Raises `msgspec.ValidationError` for fields of a wrong type, `msgspec.DecodeError` for text that is no JSON.
    """
    try:
        return _plain_decoder.decode(line)
    except msgspec.ValidationError:
        return _decoder.decode(line)
