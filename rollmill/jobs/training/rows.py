"""Reads training rows: conversations, as `messages` or as TRL's `prompt` and `completion`, for a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import orjson

from rollmill.corpus.content_parts import remove_think_block
from rollmill.corpus.inputs import find_sources, identify
from rollmill.corpus.producer_values import add_system_prompt
from rollmill.corpus.producers.trl import Trl, kto_label
from rollmill.corpus.row_reader import parse_row
from rollmill.corpus.training_marks import (
    MESSAGE_MARKS,
    is_cut_off_message,
    is_cut_off_row,
    is_untrained_message,
    is_untrained_row,
)
from rollmill.exports.origins import REJECTED_SIDE_REASON
from rollmill.exports.rollout_rows import training_rows_of_rollouts
from rollmill.exports.token_references import token_location
from rollmill.exports.token_sequences import IGNORED
from rollmill.files.rows import BadRow, Row, read_json_lines
from rollmill.generation.row_digest import row_digest
from rollmill.generation.sampling import NOT_FOR_TEMPLATES
from rollmill.jobs.training.tool_calls import UnusableRowError, read_arguments, read_call
from rollmill.records import TokenLocation

Chat = list[dict[str, Any]]
ASSISTANT = "assistant"
REASONING = "reasoning_content"
_LARGEST_ID = 2**31
"""Ids are stored as int32."""
_REASONING_NAMES = (REASONING, "reasoning", "thinking")
"""Keys of a message under which producers store the thoughts before an answer."""
MARKED = "marked_not_for_training"
_SENT_ARGUMENTS = "sent_arguments"
_STOP_TEXT = "stop_text"
_NOT_FOR_TEMPLATES = frozenset(
    {*_REASONING_NAMES, *MESSAGE_MARKS, "finish_reason", "stop_reason", "extra", _SENT_ARGUMENTS, _STOP_TEXT}
)
"""Keys of messages that are not passed to chat templates."""


class RecordedIds(NamedTuple):
    """Token ids that are stored in the row itself."""

    input_ids: list[int]
    labels: list[int]
    """One for each id: the id where it is trained on, else -100."""
    tokenizer: str | None
    """Hash of the tokenizer that the ids belong to (`metadata.tokenizer`); None where the row does not have it."""


class TrainingRow(NamedTuple):
    """A conversation to train on."""

    messages: Chat
    """Content is text, the arguments of tool calls are objects, thoughts are `reasoning_content`, nothing is null."""
    context: Chat
    """The messages as the prompts of later turns had them: without thoughts where these were not sent again
    (`metadata.reasoning_dropped`), calls with the arguments that were sent (`sent_arguments`)."""
    trained: tuple[int, ...]
    """Indices of the messages that carry the loss: the assistant's, of `messages` or of `completion`, unless marked as
    not to be trained on."""
    cut_off: frozenset[int]
    """Indices of the messages that were cut off: the last turn by `metadata.truncated`, any by its own
    `finish_reason`."""
    endless: frozenset[int]
    """Indices of the messages that the model did not end, so that no end-of-turn token is trained on: those that were
    cut off, and those that a stop text ended (`stop_text`, and for the last turn `metadata.no_end`)."""
    tools: list[Any] | None
    options: dict[str, Any]
    """More variables for the chat template (`chat_template_kwargs`)."""
    recorded: RecordedIds | TokenLocation | None
    """The ids that the model sampled, or where they are stored; None where they are not known."""
    ids_match_text: bool
    """The recorded ids are those of the row's text, which has not been corrected since."""
    sample_id: int
    """`metadata.sample_id`; 0 where there is none."""
    problem: str
    """`metadata.instance_id`; where there is none, the messages before the first assistant turn, as JSON."""


def read_training_rows(path: str) -> Iterator[tuple[int, TrainingRow | BadRow]]:
    """Yield (line number, row) of a file, local or remote: training rows in JSON Lines, or any format of curation.

    Raises `InputError` where the file cannot be read.
    """
    rows = read_json_lines(path) if holds_training_rows(path) else training_rows_of_rollouts(path)
    for number, row in rows:
        yield number, row if isinstance(row, BadRow) else training_row(number, row)


def training_row(number: int, row: Row) -> TrainingRow | BadRow:
    """Return the conversation of one JSON object, or the reason why it cannot be trained on."""
    try:
        return _training_row(row)
    except UnusableRowError as error:
        return BadRow(number, error.field, error.reason, _excerpt(row))


def _excerpt(row: Row) -> str:
    try:
        return orjson.dumps(row).decode()[:2000]
    except TypeError:  # nested deeper than orjson writes
        return ""


def holds_training_rows(path: str) -> bool:
    """Return whether a file has training rows, by its first row; other files have rollouts.

    Raises `InputError` where the file cannot be read.
    """
    (source, *_) = find_sources([path])
    source = identify(source)
    if source.run or source.kind != "lines" or not (source.reader is None or isinstance(source.reader.producer, Trl)):
        return False
    first = parse_row(source.first_row())
    if not isinstance(first, dict):
        return True  # its rows are reported as bad, each with its line
    messages = first.get("messages")
    # A rollout's `messages` are its prompt, and the answer is in `completion`; other producers' have no roles.
    is_rollout = "messages" in first and (first.get("completion") is not None or not _have_roles(messages))
    return not is_rollout and (is_training_row(first) or "instance_id" not in first) and "chosen" not in first


def _have_roles(messages: Any) -> bool:
    """Return whether all messages have a role, as training rows' do; JSON text and other producers' forms do not."""
    if not isinstance(messages, list):
        return not isinstance(messages, str)
    return all("role" in message for message in messages if isinstance(message, dict))


def is_training_row(row: Row | BadRow) -> bool:
    """Return whether a row has the keys of a training row."""
    return isinstance(row, dict) and ("messages" in row or ("prompt" in row and "completion" in row))


def _training_row(row: Row) -> TrainingRow:
    if is_untrained_row(row):
        raise UnusableRowError(MARKED, "the row is marked as not to be trained on")
    if kto_label(row) is False:
        raise UnusableRowError(REJECTED_SIDE_REASON, "the row's label marks the answer as rejected")
    if row.get("messages") is not None:
        originals, first = _read_chat(row | {"messages": _with_system(row)}, "messages", "user"), 0
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt = _read_chat(row, "prompt", "user")
        originals, first = prompt + _read_chat(row, "completion", ASSISTANT), len(prompt)
    else:
        raise UnusableRowError("messages", "neither messages, nor prompt and completion")
    messages = [_clean_message(message) for message in originals]
    turns = [number for number in range(first, len(messages)) if messages[number]["role"] == ASSISTANT]
    if not turns:
        raise UnusableRowError("messages", "no assistant turn to train on")
    value = row.get("metadata")
    metadata: dict[str, Any] = value if isinstance(value, dict) else {}
    cut_off = frozenset(number for number in turns if is_cut_off_message(originals[number]))
    if is_cut_off_row(row):
        cut_off |= {turns[-1]}
    # A turn that was cut off in its thoughts has no answer yet, and is trained on all the same.
    thoughts_only = any(REASONING in messages[number] for number in cut_off)
    if not thoughts_only and not any(has_answer(messages[number]) for number in turns):
        raise UnusableRowError("messages", "the assistant's turns are empty")
    trained = tuple(number for number in turns if not is_untrained_message(originals[number]))
    if not trained:
        raise UnusableRowError(MARKED, "all turns of the assistant are marked as not to be trained on")
    options = _template_options(row.get("chat_template_kwargs"))
    recorded = _recorded_ids(row, metadata)
    return TrainingRow(
        messages,
        _context_messages(originals, messages, dropped=metadata.get("reasoning_dropped") is True),
        trained,
        cut_off,
        cut_off | _stopped(originals, turns, last=metadata.get("no_end") is True),
        _tools(row.get("tools")),
        options,
        recorded,
        recorded is not None and _ids_match_text(row, metadata, recorded),
        _sample_id(metadata),
        _problem_key(row, messages),
    )


def _template_options(options: Any) -> dict[str, Any]:
    if not options:
        return {}
    if not isinstance(options, dict):
        raise UnusableRowError("chat_template_kwargs", "not an object")
    refused = sorted((NOT_FOR_TEMPLATES | _rendering_parameters()) & options.keys())
    if refused:
        raise UnusableRowError("chat_template_kwargs", f"{refused[0]} is not a variable of templates")
    return options


@cache
def _rendering_parameters() -> frozenset[str]:
    """Return the parameters of `apply_chat_template`; read from its signature, since later versions may have more."""
    from transformers import PreTrainedTokenizerBase

    return frozenset(signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"documents"}


def _context_messages(originals: Chat, messages: Chat, *, dropped: bool) -> Chat:
    """Return messages as later requests had them; `dropped` tells that thoughts were not sent again.

    A message that was sent as it is, is the same object in both.
    """
    hidden = {REASONING} if dropped else set()
    return [
        {key: value for key, value in message.items() if key not in hidden} | _sent_calls(message, original)
        if hidden & message.keys() or _SENT_ARGUMENTS in original
        else message
        for message, original in zip(messages, originals, strict=True)
    ]


def _sent_calls(message: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    """Return a message's calls with the arguments that later requests had; nothing where they were its own."""
    calls, sent = message.get("tool_calls"), original.get(_SENT_ARGUMENTS)
    if not isinstance(calls, list) or not isinstance(sent, list) or len(calls) != len(sent):
        return {}
    return {
        "tool_calls": [
            call | {"function": call["function"] | {"arguments": read_arguments(arguments)}} if _is_call(call) else call
            for call, arguments in zip(calls, sent, strict=True)
        ]
    }


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("function"), dict)


def _stopped(originals: Chat, turns: list[int], *, last: bool) -> frozenset[int]:
    """Return the turns that a stop text ended; with `last`, the last one too."""
    stopped = {number for number in turns if isinstance(originals[number].get(_STOP_TEXT), str)}
    return frozenset(stopped | ({turns[-1]} if last else set()))


def _recorded_ids(row: Row, metadata: dict[str, Any]) -> RecordedIds | TokenLocation | None:
    ids, labels = row.get("input_ids"), row.get("labels")
    if ids is None:
        return token_location(metadata.get("tokens"))
    # TRL accepts lists of unequal length silently.
    if not _are_ids(ids) or not isinstance(labels, list) or len(labels) != len(ids):
        raise UnusableRowError("labels", "not a list of as many ids as input_ids has")
    if not all(label in (IGNORED, id_) for label, id_ in zip(labels, ids, strict=True)):
        raise UnusableRowError("labels", f"labels are neither {IGNORED} nor the id at the same index")
    tokenizer = metadata.get("tokenizer")
    return RecordedIds(ids, labels, tokenizer if isinstance(tokenizer, str) else None)


def _ids_match_text(row: Row, metadata: dict[str, Any], recorded: RecordedIds | TokenLocation) -> bool:
    """Return whether a row's text is the one that its token ids were recorded for, by the digest that was stored then.

    Ids in a row without a digest are taken as they are.
    """
    location = recorded if isinstance(recorded, TokenLocation) else token_location(metadata.get("tokens"))
    return location is None or location.digest == row_digest(row)


def _are_ids(ids: Any) -> bool:
    # `type`, not `isinstance`: True is an int.
    return isinstance(ids, list) and len(ids) > 0 and all(type(id_) is int and 0 <= id_ < _LARGEST_ID for id_ in ids)


def _sample_id(metadata: Any) -> int:
    sample_id = metadata.get("sample_id") if isinstance(metadata, dict) else None
    return sample_id if type(sample_id) is int else 0  # not `isinstance`: True is an int


def has_answer(message: dict[str, Any]) -> bool:
    """Return whether a turn has content or a call; thoughts alone are no answer."""
    return bool(message["content"].strip() or message.get("tool_calls"))


def _read_chat(row: Row, field: str, role: str) -> Chat:
    value = row[field]
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise UnusableRowError(field, "not a list of messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UnusableRowError(field, "a message without a role")
    return [{**message, "content": _content_text(field, message.get("content"))} for message in value]


def _with_system(row: Row) -> Any:
    """Return a row's messages with the system prompt, which some producers store beside them, as the first message."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages
    return add_system_prompt(messages, row) if messages else messages


def _clean_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message for templates: no nulls, no marks, thoughts under one key, arguments of calls as objects."""
    kept = {key: value for key, value in message.items() if value is not None and key not in _NOT_FOR_TEMPLATES}
    if isinstance(calls := kept.pop("tool_calls", None), list) and calls:
        kept["tool_calls"] = [read_call(call) for call in calls]
    named = (message.get(name) for name in _REASONING_NAMES)
    thoughts = next((text for text in named if isinstance(text, str) and text.strip()), None)
    if message["role"] == ASSISTANT and thoughts:
        kept |= {REASONING: thoughts, "content": remove_think_block(message["content"], thoughts)}
    return kept


def _content_text(field: str, content: Any) -> str:
    """Return a content as text: parts of text joined by newlines, as `rollmill.exports.token_counter` counts them."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise UnusableRowError(field, "a content that is neither text nor a list of parts")
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise UnusableRowError(field, "a content with parts that are not text (images are not trained on)")
    return "\n".join(texts)


def _tools(tools: Any) -> list[Any] | None:
    if isinstance(tools, str):
        try:
            tools = orjson.loads(tools)
        except orjson.JSONDecodeError as error:
            raise UnusableRowError("tools", f"not valid JSON: {error}") from error
    if tools is not None and not isinstance(tools, list):
        raise UnusableRowError("tools", "not a list")
    return tools or None


def _problem_key(row: Row, messages: Chat) -> str:
    metadata = row.get("metadata")
    named = metadata.get("instance_id") if isinstance(metadata, dict) else None
    if named is not None:
        return str(named)
    begin = next(number for number, message in enumerate(messages) if message["role"] == ASSISTANT)
    return orjson.dumps([[message["role"], message["content"]] for message in messages[:begin]]).decode()
