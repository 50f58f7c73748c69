"""One record as it stands in a file: its few scalars, and its messages with their contents left as text.

A trajectory is tens of kilobytes and the questions asked of it are about a few numbers. So contents stay the JSON text
that they are (`msgspec.Raw`), and are decoded only where somebody reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
import orjson

from rollmill.corpus.message_forms import (
    EMPTY_TEXT,
    NOTHING,
    Message,
    PlainMessage,
    RecordedMessage,
    has_mark,
    image_address,
    in_one_form,
    is_absent,
    is_cut_off_turn,
    is_models,
    metadata_has_mark,
    says_cut_off,
    says_yes,
    tells_of_cut,
    with_roles,
    without_null_fields,
    without_nulls,
)
from rollmill.corpus.producer_values import openai_tools
from rollmill.records import is_cut_off

UNREADABLE = (msgspec.MsgspecError, orjson.JSONDecodeError, UnicodeDecodeError, RecursionError)
"""What reading the contents of a record raises where they are none: a scan decodes no more of them than it must."""

Turns = list[RecordedMessage] | str | None
"""A conversation, the text of its only message, or (`messages`, and columns of tables) a conversation as JSON text."""

AnyTurns = Sequence[PlainMessage] | str | None
"""The same, decoded in whatever way."""


class Record(msgspec.Struct, gc=False):
    """A record's fields: any JSON value in the scalars, since files of others hold any; text in what may be large."""

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
    """JSON of what `Turns` may be: a text stays as it is spelt."""
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
        """Return all messages in the one form of `message_forms`, the completion last; None where there are none.

        It can be asked for once: the messages' bookkeeping is then gone.
        """
        recorded = self.recorded()
        return None if recorded is None else in_one_form(recorded, _paths(self.images))

    def recorded(self) -> Sequence[PlainMessage] | None:
        """Return all messages as they stand in the file, the completion last, thoughts beside it in it."""
        turns: AnyTurns
        turns, name = (self.messages, "messages") if self.messages is not None else (self.trajectory, "trajectory")
        if isinstance(turns, str):
            opened = _opened(turns)
            if isinstance(opened, str):
                raise msgspec.ValidationError(f"Expected `array | null`, got `str` - at `$.{name}`")
            turns = opened
        if turns is None:
            prompt = _opened(self.prompt)
            # A model may write a conversation as JSON: its answer is opened only beside a prompt that is one.
            as_json = isinstance(self.prompt, str) and isinstance(prompt, list)
            turns = _turns(prompt, "user")
            answer = self._answer(as_json=as_json)
        else:
            answer = self._answer()
        turns = with_roles(turns) if isinstance(turns, list) else turns
        thoughts = self.thoughts()
        if answer is None and thoughts is None:
            return turns if isinstance(turns, list) else None
        if answer is None and not (turns and turns[-1].role == "assistant"):
            answer = [PlainMessage("assistant", EMPTY_TEXT)]
        repeated = answer is None or (
            turns and turns[-1].role == "assistant" and _same_content(turns[-1].content, answer[-1].content)
        )
        every: list[PlainMessage] = list(turns or [])
        if not repeated:
            for turn in every:
                if turn.role == "assistant":  # an example, or what was said before: the completion is the model's
                    turn.weight = _NOT_LEARNT
            every += answer or []
        if thoughts is not None and is_absent(every[-1].reasoning_content):
            every[-1].reasoning_content = thoughts
        if self._is_text():
            self._add_calls(every[-1])
        return every

    def _add_calls(self, answer: PlainMessage) -> None:
        """Give the completion's message the calls that stand beside it, and what ended it."""
        if is_absent(answer.tool_calls):
            answer.tool_calls = self._calls()
        if self.stop_text is not NOTHING and not is_absent(self.stop_text):
            answer.stop_text = self.stop_text
        elif self.stop_reason == "stop_sequence":  # Anthropic's word for it
            answer.stop_text = EMPTY_TEXT
        elif self.finish_reason == "stop" and isinstance(self.stop_reason, str) and not _ENDED.match(self.stop_reason):
            answer.stop_text = msgspec.Raw(msgspec.json.encode(self.stop_reason))  # as vLLM writes the text itself

    def _calls(self) -> msgspec.Raw:
        """Return the calls that stand beside the completion; older journals have them in their metadata."""
        calls = self.tool_calls
        if calls is NOTHING and len(self.metadata) > 2 and b'"tool_calls"' in bytes(self.metadata):
            calls = self.metadata_fields().get("tool_calls", NOTHING)
        return calls if len(calls) and memoryview(calls)[0] == _BRACKET else NOTHING

    def _answer(self, *, as_json: bool = False) -> Sequence[PlainMessage] | None:
        """Return the completion's messages; `as_json`: it may be a conversation as JSON text."""
        if (
            self.completion is NOTHING
            and self.prompt is not None
            and self.response
            and memoryview(self.response)[0] == _QUOTE
        ):
            self.completion = self.response  # text under another name
        completion = self.completion
        if completion is NOTHING:
            return None
        if memoryview(completion)[0] != _QUOTE:
            return None if is_absent(completion) else _completion(completion) or None
        turns = _opened(msgspec.json.decode(completion, type=str)) if as_json else None
        return turns or None if isinstance(turns, list) else [PlainMessage("assistant", completion)]

    def _is_text(self) -> bool:
        """Return whether the completion is a text."""
        return self.completion is not NOTHING and memoryview(self.completion)[0] == _QUOTE

    def thoughts(self) -> msgspec.Raw | None:
        """Return the thoughts that stand beside the completion; None where there are none."""
        values = (self.reasoning_content, self.reasoning, self.thinking)
        if values != _NO_THOUGHTS:
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
        """Return whether no later request held the thoughts of earlier answers."""
        if len(self.metadata) <= 2 or b'"reasoning_dropped"' not in bytes(self.metadata):
            return False
        return says_yes(self.metadata_fields().get("reasoning_dropped", NOTHING))

    def metadata_fields(self) -> dict[str, msgspec.Raw]:
        """Return the fields of `metadata`, empty where it is no object; it may be one as JSON text."""
        return raw_fields(self.metadata)

    def beside(self, name: Literal["tools", "chat_template_kwargs"]) -> msgspec.Raw:
        """Return what the rollout's requests had besides, from the row or its metadata; opened where it is text."""
        value: msgspec.Raw = getattr(self, name)
        if value is NOTHING and len(self.metadata) <= 2 and (name != "tools" or self.functions is NOTHING):
            return NOTHING
        if is_absent(value) and len(self.metadata) > 2 and name.encode() in bytes(self.metadata):
            value = self.metadata_fields().get(name, NOTHING)
        if name == "tools" and bytes(value) in (b"", b"null", b"[]"):
            return self._tools_of_functions()
        value = opened_json(value)
        text = bytes(value)
        if name == "chat_template_kwargs":
            if text[:1] == b"{" and b"null" in text:  # as a table's writer fills in what other rows have
                value = msgspec.Raw(msgspec.json.encode(without_null_fields(value)))
            return value if text[:1] == b"{" and bytes(value)[1:-1].strip() else NOTHING
        return _tools(text) if text[:1] == b"[" and text[1:-1].strip() else NOTHING

    def recorded_tokens(self) -> msgspec.Raw:
        """Return where the recorded tokens are, from the row, or of a training row from its metadata."""
        if not is_absent(self.tokens) or len(self.metadata) <= 2 or b'"tokens"' not in bytes(self.metadata):
            return self.tokens
        return self.metadata_fields().get("tokens", NOTHING)

    def _tools_of_functions(self) -> msgspec.Raw:
        """Return the tools that OpenAI's older requests have as `functions`."""
        text = bytes(opened_json(self.functions))
        if text[:1] != b"[" or not text[1:-1].strip():
            return NOTHING
        functions = _raw_items.decode(text)
        return _tools(msgspec.json.encode([{"type": "function", "function": each} for each in functions]))

    def is_cut_off(self) -> bool:
        """Return whether the completion was cut off at a limit on tokens, under any name, on any level."""
        if self.finish_reason is not None and _is_cut_off(self.finish_reason):
            return True
        if self.stop_reason is not None and _is_cut_off(self.stop_reason):
            return True
        if says_yes(self.truncated) or says_yes(self.is_truncated):
            return True
        values = _ending(self)
        if values != _NO_ENDING and says_cut_off(dict(zip(_ENDING.values(), map(opened_json, values), strict=True))):
            return True
        if len(self.metadata) > 2 and tells_of_cut(opened_json(self.metadata)):
            return True
        return self.ends_cut_off()

    def ends_cut_off(self) -> bool:
        """Return whether the model's last message says that it was cut off; of a text the reason stands in the row."""
        if self._is_text():
            return False
        turns: AnyTurns = None
        if len(self.completion) and not is_absent(self.completion):
            turns = _completion(self.completion)
        else:
            turns = _opened(self.messages if self.messages is not None else self.trajectory)
        for turn in reversed(with_roles(turns)) if isinstance(turns, list) else ():
            if is_models(turn):
                return is_cut_off_turn(turn)
        return False

    def is_marked(self) -> bool:
        """Return whether the row as a whole is marked as not to be trained on."""
        return has_mark(self) or (len(self.metadata) > 2 and metadata_has_mark(opened_json(self.metadata)))


def _is_cut_off(reason: object) -> bool:
    if isinstance(reason, str):
        return is_cut_off_word(reason)
    # Some servers say more than a word.
    return isinstance(reason, dict) and (is_cut_off(reason.get("type")) or is_cut_off(reason.get("reason")))


@lru_cache(256)
def is_cut_off_word(reason: str) -> bool:
    """Return the same as `is_cut_off`, remembered: there are few reasons, and many rows."""
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
"""Fields of a record that tell how its answer ended, and their names in the file."""
_ending, _NO_ENDING = attrgetter(*_ENDING), (NOTHING,) * len(_ENDING)
_NOT_LEARNT = msgspec.Raw(b"0")
_ENDED = re.compile(
    r"(?:stop|eos|end_?turn|end|complete|finished|tool_(?:use|calls)|refusal|pause_turn|none|null)?\Z", re.I
)
"""Words by which a row says that the model ended the answer itself."""


def _completion(value: msgspec.Raw) -> list[PlainMessage]:
    """Return the messages of a completion that is no text. Raises `msgspec.ValidationError` where it is none."""
    try:
        turns = _turns_decoder.decode(value)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{message} - at `$.completion{path or '`'}") from None
    assert isinstance(turns, list)
    return list(with_roles(turns))


_QUOTE, _BRACKET = b'"['
_NO_THOUGHTS = (NOTHING,) * 3
_messages = msgspec.json.Decoder(list[RecordedMessage])
_turns_decoder = msgspec.json.Decoder(Turns)
_raw_items = msgspec.json.Decoder(list[msgspec.Raw])
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _opened(value: AnyTurns) -> AnyTurns:
    """Return the conversation that JSON text holds, as columns of tables have them; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        turns = _messages.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    return turns if all(turn.role or len(turn.type) for turn in turns) else value


def opened_json(value: msgspec.Raw) -> msgspec.Raw:
    """Return the JSON object or list that a JSON string holds; any other value as it is."""
    if bytes(memoryview(value)[:1]) != b'"':
        return value
    try:
        text = msgspec.json.decode(value)
        return msgspec.Raw(bytes(msgspec.json.decode(text, type=msgspec.Raw))) if text[:1] in ("[", "{") else value
    except (msgspec.DecodeError, RecursionError):
        return value


def raw_fields(value: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the fields of an object, or of one as JSON text; empty for any other value."""
    value = opened_json(value)
    return _raw_fields.decode(value) if bytes(memoryview(value)[:1]) == b"{" else {}


@lru_cache(16)  # the rollouts of a run have the same
def _tools(text: bytes) -> msgspec.Raw:
    """Return tools in OpenAI's form, without the nulls with which tables fill properties up; unknown forms stay."""
    tools = [
        msgspec.json.decode(tool) if isinstance(tool, str) and tool[:1] == "{" else tool
        for tool in msgspec.json.decode(text)
    ]
    if all(isinstance(tool, dict) for tool in tools):
        formed = [form for tool in tools for form in openai_tools([tool]) or [tool]]
        if formed == tools and not _are_filled(tools) and bytes(text)[1:2] != b'"':
            return msgspec.Raw(text)
        tools = formed
    return msgspec.Raw(msgspec.json.encode(without_nulls(tools) if _are_filled(tools) else tools))


def _are_filled(value: Any) -> bool:
    """Return whether a field of some tool is null that none can have so: a table's writer has filled it in."""
    if isinstance(value, list):
        return any(map(_are_filled, value))
    if not isinstance(value, dict):
        return False
    return any(item is None and key not in _MAY_BE_NULL for key, item in value.items()) or any(
        _are_filled(item) for key, item in value.items() if key not in _MAY_BE_NULL
    )


_MAY_BE_NULL = frozenset({"default", "const", "example"})
"""Fields of JSON Schema that hold a value of what they describe."""


def _paths(images: msgspec.Raw) -> Iterator[str]:
    """Yield the paths or addresses of the images of a row, in order, as trainers' files list them."""
    listed = msgspec.json.decode(images) if bytes(memoryview(images)[:1]) == b"[" else []
    for image in listed:
        address = image if isinstance(image, str) else image_address(image) if isinstance(image, dict) else None
        if address is None:
            return  # later ones would stand for others
        yield address


def _same_content(first: msgspec.Raw, second: msgspec.Raw) -> bool:
    """Return whether two contents say the same, however it was written down."""
    if first == second:
        return True
    return bool(bytes(first) and bytes(second)) and bool(msgspec.json.decode(first) == msgspec.json.decode(second))


def _turns(value: AnyTurns, role: str) -> Sequence[PlainMessage] | None:
    if isinstance(value, str):
        return [PlainMessage(role, msgspec.Raw(orjson.dumps(value)))]
    return value or None


PlainTurns = list[PlainMessage] | str | None


class _PlainRecord(Record, gc=False):
    """A record whose messages have few fields, as those of most have: found out while decoding, in less time."""

    messages: PlainTurns = None  # type: ignore[assignment]
    trajectory: PlainTurns = None  # type: ignore[assignment]
    prompt: PlainTurns = None  # type: ignore[assignment]


_decoder, _plain_decoder = msgspec.json.Decoder(Record), msgspec.json.Decoder(_PlainRecord)


def decode_record(line: bytes | memoryview) -> Record:
    """Return one record.

    Raises `msgspec.ValidationError` for fields of a wrong shape, `msgspec.DecodeError` for no JSON.
    """
    try:
        return _plain_decoder.decode(line)
    except msgspec.ValidationError:
        return _decoder.decode(line)


def content_text(content: msgspec.Raw) -> str:
    """Return the text of one message's content; of a list of parts, the text of its text parts, a line each."""
    return "\n".join(_texts(msgspec.json.decode(content) if bytes(content) else None))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part.get("text") if isinstance(part, dict) else part)


def written_text(record: Record) -> str:
    """Return everything that the model wrote, message by message: thoughts, content, tool calls as JSON."""
    turns = (turn for turn in record.conversation() or [] if turn.role == "assistant")
    return "\n".join(
        text
        for turn in turns
        for text in (content_text(turn.reasoning_content), content_text(turn.content), bytes(turn.tool_calls).decode())
        if text
    )


def whole_text(record: Record) -> str:
    """Return the text of all messages."""
    return "\n".join(content_text(turn.content) for turn in record.conversation() or [])


_ESCAPE = b"\\u"
_CODE_POINT = re.compile(rb"\\u")
_LARGE = 4 << 10
_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR_LENGTH = 12


def has_code_points(text: bytes) -> bool:
    r"""Return whether there may be a `\u` escape in it, for which writers of JSON have more than one form."""
    if len(text) < _LARGE:
        return _CODE_POINT.search(text) is not None  # a third of the time of `in`
    return holds(text, _ESCAPE)


def holds(text: bytes, sought: bytes) -> bool:
    """Return whether bytes hold two or four others. Of long texts in a tenth of the time of `in`."""
    # They may begin at any place: the text is looked at as numbers from each of the first ones. It is moved for that,
    # since numpy compares what is not aligned slowly.
    number = np.frombuffer(sought, np.dtype(f"<u{len(sought)}"))
    return any(_has_number(text[start:], number) for start in range(len(sought)))


def _has_number(text: bytes, number: np.ndarray[Any, Any]) -> bool:
    count = len(text) // number.itemsize
    found = bytearray(count)
    np.equal(np.frombuffer(text, number.dtype, count), number, out=np.frombuffer(found, np.bool_))
    return 1 in found


def has_lone_surrogate(line: bytes) -> bool:
    r"""Return whether JSON holds an escape such as `\ud800` that is half of a character, and not its other half."""
    if _HALF.search(line) is None:
        return False
    # A pair of backslashes before is a backslash of the text, not the beginning of an escape.
    text = line.replace(b"\\\\", b"__")
    return any(len(match[0]) < _PAIR_LENGTH for match in _SURROGATE.finditer(text))


def repair(line: bytes) -> bytes | None:
    """Return the line with null for NaN and Infinity, and `?` for lone surrogates, which Python's `json` writes.

    The client of model servers does the same with lone surrogates. Returns None where that is not the matter.
    """
    if b"NaN" not in line and b"Infinity" not in line and not has_lone_surrogate(line):
        return None
    try:
        values = json.loads(line, parse_constant=lambda _: None)
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
    except (ValueError, TypeError, RecursionError):
        return None
