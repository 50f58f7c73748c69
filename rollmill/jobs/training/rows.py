"""Training rows: conversations, as `messages` or as TRL's `prompt` and `completion`, ready for a chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import orjson

from rollmill.corpus.content_parts import without_thoughts
from rollmill.corpus.inputs import find_sources, identify
from rollmill.corpus.producer_values import with_system
from rollmill.corpus.producers.trl import Trl, kto_label
from rollmill.corpus.row_reader import parsed_row
from rollmill.corpus.training_marks import (
    MESSAGE_MARKS,
    is_cut_off_message,
    is_cut_off_row,
    is_untrained_message,
    is_untrained_row,
)
from rollmill.exports.origins import REJECTED_SIDE
from rollmill.exports.rollout_rows import rollout_rows
from rollmill.exports.token_references import token_location
from rollmill.exports.token_sequences import IGNORED
from rollmill.files.rows import BadRow, Row, read_json_lines
from rollmill.generation.row_digest import row_digest
from rollmill.generation.sampling import NOT_FOR_TEMPLATES
from rollmill.records import TokenLocation

Chat = list[dict[str, Any]]
ASSISTANT = "assistant"
REASONING = "reasoning_content"
_LARGEST_ID = 2**31
_LARGEST_EXACT = 2.0**63
_DEEPEST = 100
"""Levels of a call's arguments; orjson reads a thousand, and what walks through them would fall."""
_REASONING_NAMES = (REASONING, "reasoning", "thinking")
"""What producers call the thoughts before an answer."""
MARKED = "marked_not_for_training"
_ARGUMENT_NAMES = ("arguments", "args", "input", "parameters")
_SENT_ARGUMENTS = "sent_arguments"
_STOP_TEXT = "stop_text"
_NOT_FOR_TEMPLATES = frozenset(
    {*_REASONING_NAMES, *MESSAGE_MARKS, "finish_reason", "stop_reason", "extra", _SENT_ARGUMENTS, _STOP_TEXT}
)


class RecordedIds(NamedTuple):
    """Ids that stand in the row itself."""

    input_ids: list[int]
    labels: list[int]
    """As many: the id where it is learnt, else -100."""
    tokenizer: str | None
    """Hash of the tokenizer that they belong to (`metadata.tokenizer`); None where the row does not say."""


class TrainingRow(NamedTuple):
    """A conversation to learn from."""

    messages: Chat
    """Content is text, the arguments of tool calls are objects, thoughts are `reasoning_content`, nothing is null."""
    context: Chat
    """The same as the prompts of later turns had them: without thoughts where these were not sent again
    (`metadata.reasoning_dropped`), calls with the arguments that were (`sent_arguments`)."""
    learnt: tuple[int, ...]
    """Which messages are learnt: the assistant's, of `messages` or of `completion`, that nothing marks otherwise."""
    cut_off: frozenset[int]
    """Which messages were cut off: the last turn by what the row says (`metadata.truncated`), any by its own
    `finish_reason`."""
    endless: frozenset[int]
    """Which messages the model did not end, so that where they end is not learnt: one that was cut off, and those that
    a stop text ended (`stop_text`, and for the last turn `metadata.no_end`)."""
    tools: list[Any] | None
    options: dict[str, Any]
    """What else the chat template is given (`chat_template_kwargs`)."""
    recorded: RecordedIds | TokenLocation | None
    """The ids that the model sampled, or where they are; None where they are not known."""
    of_its_text: bool
    """Whether the recorded ids are those of the row's text: somebody may have corrected it since."""
    sample_id: int
    """`metadata.sample_id`; 0 where there is none."""
    problem: str
    """`metadata.instance_id`; where there is none, what stands before the first assistant turn."""


class CallArguments(dict[str, Any]):
    """The arguments of a tool call as an object. `text`: as the row has them, for templates that write text."""

    text: str = ""


class _UnusableError(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def read_training_rows(path: str) -> Iterator[tuple[int, TrainingRow | BadRow]]:
    """Yield (number, row) of a file, local or remote: of training rows in JSON Lines, or of all that curation reads.

    Raises `InputError` where the file cannot be read.
    """
    rows = read_json_lines(path) if holds_training_rows(path) else rollout_rows(path)
    for number, row in rows:
        yield number, row if isinstance(row, BadRow) else training_row(number, row)


def training_row(number: int, row: Row) -> TrainingRow | BadRow:
    """Return the conversation of one JSON object, or why it teaches nothing."""
    try:
        return _training_row(row)
    except _UnusableError as error:
        return BadRow(number, error.field, error.reason, _shown(row))


def _shown(row: Row) -> str:
    try:
        return orjson.dumps(row).decode()[:2000]
    except TypeError:  # nested deeper than orjson writes
        return ""


def holds_training_rows(path: str) -> bool:
    """Return whether a file holds rows for training as they are, by its first row; others hold rollouts.

    Raises `InputError` where it cannot be read.
    """
    (source, *_) = find_sources([path])
    source = identify(source)
    if source.run or source.kind != "lines" or not (source.reader is None or isinstance(source.reader.producer, Trl)):
        return False
    first = parsed_row(source.first_row())
    if not isinstance(first, dict):
        return True  # whose rows are said to be bad, each with its line
    messages = first.get("messages")
    is_rollout = "messages" in first and (first.get("completion") is not None or not _have_roles(messages))
    return not is_rollout and (is_training_row(first) or "instance_id" not in first) and "chosen" not in first


def _have_roles(messages: Any) -> bool:
    """Return whether messages are no JSON text, and none of them is in a form without a role."""
    if not isinstance(messages, list):
        return not isinstance(messages, str)
    return all("role" in message for message in messages if isinstance(message, dict))


def is_training_row(row: Row | BadRow) -> bool:
    """Return whether a row is of a kind that trains, by its keys."""
    return isinstance(row, dict) and ("messages" in row or ("prompt" in row and "completion" in row))


def _training_row(row: Row) -> TrainingRow:
    if is_untrained_row(row):
        raise _UnusableError(MARKED, "the row is marked as not to be trained on")
    if kto_label(row) is False:
        raise _UnusableError(REJECTED_SIDE, "the row's label says that the answer is not wanted")
    if row.get("messages") is not None:
        given, first = _chat(row | {"messages": _with_system(row)}, "messages", "user"), 0
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt = _chat(row, "prompt", "user")
        given, first = prompt + _chat(row, "completion", ASSISTANT), len(prompt)
    else:
        raise _UnusableError("messages", "neither messages, nor prompt and completion")
    messages = [_message(message) for message in given]
    speakers = [number for number in range(first, len(messages)) if messages[number]["role"] == ASSISTANT]
    if not speakers:
        raise _UnusableError("messages", "no assistant turn to learn")
    found = row.get("metadata")
    metadata: dict[str, Any] = found if isinstance(found, dict) else {}
    cut_off = frozenset(number for number in speakers if is_cut_off_message(given[number]))
    if is_cut_off_row(row):
        cut_off |= {speakers[-1]}
    thoughts_only = any(REASONING in messages[number] for number in cut_off)
    if not thoughts_only and not any(says_something(messages[number]) for number in speakers):
        raise _UnusableError("messages", "the assistant's turns are empty")
    learnt = tuple(number for number in speakers if not is_untrained_message(given[number]))
    if not learnt:
        raise _UnusableError(MARKED, "all turns of the assistant are marked as not to be trained on")
    options = _options(row.get("chat_template_kwargs"))
    recorded = _recorded(row, metadata)
    return TrainingRow(
        messages,
        _context(given, messages, dropped=metadata.get("reasoning_dropped") is True),
        learnt,
        cut_off,
        cut_off | _stopped(given, speakers, last=metadata.get("no_end") is True),
        _tools(row.get("tools")),
        options,
        recorded,
        recorded is not None and _is_of_its_text(row, metadata, recorded),
        _sample_id(metadata),
        _problem(row, messages),
    )


def _options(options: Any) -> dict[str, Any]:
    if not options:
        return {}
    if not isinstance(options, dict):
        raise _UnusableError("chat_template_kwargs", "not an object")
    refused = sorted((NOT_FOR_TEMPLATES | _rendering_parameters()) & options.keys())
    if refused:
        raise _UnusableError("chat_template_kwargs", f"{refused[0]} is not the template's to get")
    return options


@cache
def _rendering_parameters() -> frozenset[str]:
    """Return the parameters of `apply_chat_template` itself, which later versions may have more of."""
    from transformers import PreTrainedTokenizerBase

    return frozenset(signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"documents"}


def _context(given: Chat, messages: Chat, *, dropped: bool) -> Chat:
    """Return messages as later requests had them; the same ones where that is no other way."""
    hidden = {REASONING} if dropped else set()
    return [
        {key: value for key, value in message.items() if key not in hidden} | _sent_calls(message, whole)
        if hidden & message.keys() or _SENT_ARGUMENTS in whole
        else message
        for message, whole in zip(messages, given, strict=True)
    ]


def _sent_calls(message: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Return a message's calls with the arguments that later requests had; nothing where they were its own."""
    calls, sent = message.get("tool_calls"), whole.get(_SENT_ARGUMENTS)
    if not isinstance(calls, list) or not isinstance(sent, list) or len(calls) != len(sent):
        return {}
    return {
        "tool_calls": [
            call | {"function": call["function"] | {"arguments": _arguments(arguments)}} if _is_call(call) else call
            for call, arguments in zip(calls, sent, strict=True)
        ]
    }


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("function"), dict)


def _stopped(given: Chat, speakers: list[int], *, last: bool) -> frozenset[int]:
    stopped = {number for number in speakers if isinstance(given[number].get(_STOP_TEXT), str)}
    return frozenset(stopped | ({speakers[-1]} if last else set()))


def _recorded(row: Row, metadata: dict[str, Any]) -> RecordedIds | TokenLocation | None:
    ids, labels = row.get("input_ids"), row.get("labels")
    if ids is None:
        return token_location(metadata.get("tokens"))
    # TRL takes lists of unequal length without a word.
    if not _are_ids(ids) or not isinstance(labels, list) or len(labels) != len(ids):
        raise _UnusableError("labels", "not a list of as many ids as input_ids has")
    if not all(label in (IGNORED, id_) for label, id_ in zip(labels, ids, strict=True)):
        raise _UnusableError("labels", f"labels are neither {IGNORED} nor the id of their place")
    tokenizer = metadata.get("tokenizer")
    return RecordedIds(ids, labels, tokenizer if isinstance(tokenizer, str) else None)


def _is_of_its_text(row: Row, metadata: dict[str, Any], recorded: RecordedIds | TokenLocation) -> bool:
    """Return whether a row says what it said when its tokens were found.

    Ids that stand in a row that says nothing of that are taken as they are.
    """
    location = recorded if isinstance(recorded, TokenLocation) else token_location(metadata.get("tokens"))
    return location is None or location.digest == row_digest(row)


def _are_ids(ids: Any) -> bool:
    return isinstance(ids, list) and len(ids) > 0 and all(type(id_) is int and 0 <= id_ < _LARGEST_ID for id_ in ids)


def _sample_id(metadata: Any) -> int:
    named = metadata.get("sample_id") if isinstance(metadata, dict) else None
    return named if type(named) is int else 0


def says_something(message: dict[str, Any]) -> bool:
    """Return whether a turn has content or a call; thoughts alone are no answer."""
    return bool(message["content"].strip() or message.get("tool_calls"))


def _chat(row: Row, field: str, role: str) -> Chat:
    value = row[field]
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise _UnusableError(field, "not a list of messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _UnusableError(field, "a message without a role")
    return [{**message, "content": _text(field, message.get("content"))} for message in value]


def _with_system(row: Row) -> Any:
    """Return a row's messages behind the system prompt that stands beside them."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages
    return with_system(messages, row) if messages else messages


def _message(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None and key not in _NOT_FOR_TEMPLATES}
    if isinstance(calls := kept.pop("tool_calls", None), list) and calls:
        kept["tool_calls"] = [_call(call) for call in calls]
    named = (message.get(name) for name in _REASONING_NAMES)
    thoughts = next((text for text in named if isinstance(text, str) and text.strip()), None)
    if message["role"] == ASSISTANT and thoughts:
        kept |= {REASONING: thoughts, "content": without_thoughts(message["content"], thoughts)}
    return kept


def _text(field: str, content: Any) -> str:
    """Return a content as text; parts of text become lines, as `rollmill.exports.token_counter` counts them."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise _UnusableError(field, "a content that is neither text nor a list of parts")
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise _UnusableError(field, "a content with parts that are not text (images are not trained on)")
    return "\n".join(texts)


def _call(call: Any) -> Any:
    """Return a tool call with its arguments as an object, which is how servers hand them to templates."""
    if isinstance(call, dict) and call.get("function") is None and isinstance(call.get("name"), str):
        call = _nested(call)
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    function = {key: value for key, value in function.items() if value is not None}
    function["arguments"] = _arguments(function.get("arguments"))
    return {**{key: value for key, value in call.items() if value is not None}, "function": function}


def _nested(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call whose name and arguments stand in itself, as people write them by hand, in OpenAI's form."""
    arguments = next((call[name] for name in _ARGUMENT_NAMES if call.get(name) is not None), None)
    identity = {name: call[name] for name in ("id",) if call.get(name) is not None}
    return {**identity, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _arguments(arguments: Any) -> Any:
    """Return the arguments of a call as an object; text that is no JSON object stays what the model wrote."""
    text = arguments if isinstance(arguments, str) else None
    if text is not None:
        with suppress(ValueError, RecursionError):
            # Python's reader keeps whole numbers of any length, which a template writes as the model did.
            arguments = json.loads(text, parse_constant=_refuse_constant) if text.strip() else {}
    if arguments is None:
        arguments = {}
    if _is_deeper(arguments, _DEEPEST):
        raise _UnusableError("messages", f"arguments of a call that are nested more than {_DEEPEST} levels deep")
    if not isinstance(arguments, dict):
        return arguments if text is None else text
    if _has_inexact(arguments):
        raise _UnusableError("messages", "arguments of a call with a number that is not read exactly")
    loaded = CallArguments(arguments)
    loaded.text = text.strip() if text and text.strip() else json.dumps(arguments, ensure_ascii=False)
    return loaded


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _has_inexact(value: Any) -> bool:
    """Return whether a number is infinite, or so large that a row's reader may have rounded a whole one."""
    if isinstance(value, dict | list):
        return any(map(_has_inexact, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not -_LARGEST_EXACT < value < _LARGEST_EXACT


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether lists and objects lie in one another more than so many levels deep."""
    inner = [value]
    for _ in range(levels + 1):
        inner = [
            item
            for outer in inner
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not inner:
            return False
    return True


def _tools(tools: Any) -> list[Any] | None:
    if isinstance(tools, str):
        try:
            tools = orjson.loads(tools)
        except orjson.JSONDecodeError as error:
            raise _UnusableError("tools", f"not valid JSON: {error}") from error
    if tools is not None and not isinstance(tools, list):
        raise _UnusableError("tools", "not a list")
    return tools or None


def _problem(row: Row, messages: Chat) -> str:
    metadata = row.get("metadata")
    named = metadata.get("instance_id") if isinstance(metadata, dict) else None
    if named is not None:
        return str(named)
    begin = next(number for number, message in enumerate(messages) if message["role"] == ASSISTANT)
    return orjson.dumps([[message["role"], message["content"]] for message in messages[:begin]]).decode()
