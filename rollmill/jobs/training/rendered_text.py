"""Searches in rendered text: values and calls as templates write them, thoughts, and the text behind a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rollmill.jobs.training.rows import REASONING
from rollmill.jobs.training.template_forms import call_function

TEXT_MARK = "rollmillturn"
"""Stands in place of, or behind, a text whose place in a rendering is sought."""
_NUMBER_MARK = 7391824650391827
"""The same for values that are not text."""

_OPENER = re.compile(r"(?:<(\w{1,40})>|\[([A-Z_]{1,40})\])\s{0,8}$")
"""A tag that opens thoughts at the end of a prompt: `<think>`, `[THINK]`."""
_CLOSED = re.compile(
    r"(?:<([\w:]{1,40})>\s{0,8}</\1>|</[\w:]{0,20}(?:think|thought|reason)\w{0,20}>"
    r"|\[(\w{0,20}THINK\w{0,20})\]\s{0,8}\[/\2\]|<\|(\w{1,40})>\w{0,40}\s{0,8}<\3\|>)\s{0,8}$"
)
"""Thoughts that a prompt closes: an empty block, or a closing tag alone."""
_PROMPT_TAIL = 200
"""Characters at a prompt's end among which it opens or closes thoughts; bounded, since the patterns end with `$`."""
_NO_THOUGHTS = re.compile(r"\s{0,8}(?:<(\w{1,40})>\s{0,8})?</\w{1,40}>\s{0,8}")
"""A block of empty thoughts, or the closing tag alone where the prompt has opened them."""
_QUOTED_TAG = re.compile(r"([`'\"])</think>\1(?!.*</think>)", re.DOTALL)


def find_opener(prompt: str) -> tuple[int, str] | None:
    """Return where a prompt's last tag begins, and the tag that would close it; None where no tag ends the prompt."""
    match = _OPENER.search(prompt, max(0, len(prompt) - _PROMPT_TAIL))
    if not match:
        return None
    return match.start(), f"</{match[1]}>" if match[1] else f"[/{match[2]}]"


def find_closed_thoughts(prompt: str) -> re.Match[str] | None:
    """Return the match of the closed thoughts that a prompt ends with; None where it ends otherwise."""
    return _CLOSED.search(prompt, max(0, len(prompt) - _PROMPT_TAIL))


def text_behind_prompt(text: str, prompt: str) -> str | None:
    """Return what follows a prompt in a rendering; None where the rendering does not begin with it.

    Some templates write an empty block of thoughts in generation prompts only: the rendering may lack it.
    """
    if text.startswith(prompt):
        return text.removeprefix(prompt)
    block = find_closed_thoughts(prompt)
    if not block or not text.startswith(prompt[: block.start()]):
        return None
    return strip_empty_thoughts(text[block.start() :])


def has_empty_thoughts(text: str) -> bool:
    """Return whether a text begins with a block of empty thoughts."""
    return _NO_THOUGHTS.match(text) is not None


def strip_empty_thoughts(text: str) -> str:
    """Return a text without the block of empty thoughts that it may begin with."""
    return _NO_THOUGHTS.sub("", text, count=1) if _NO_THOUGHTS.match(text) else text


def closing_text(opened: str, tag: str, silent: str) -> str:
    """Return the text that closes thoughts, line breaks included.

    Args:
        opened: The text that opens them, at the prompt's end.
        tag: The tag that closes them.
        silent: What the template writes from there on for a turn without thoughts.
    """
    # Line breaks around the tag differ between templates: take them from the block that this one writes, if any.
    empty = _NO_THOUGHTS.match(silent)
    if empty and empty[0].strip().endswith(tag):
        return empty[0].removeprefix(opened).removeprefix(opened.rstrip())
    return f"\n{tag}\n\n" if opened.endswith("\n") else tag


def opens_thoughts(message: dict[str, Any]) -> bool:
    """Return whether a content is raw thoughts (`<think>...`) that nothing closes."""
    content = message["content"]
    return REASONING not in message and content.lstrip().startswith("<think>") and "</think>" not in content


def has_raw_thoughts(content: str) -> bool:
    """Return whether a content has its thoughts in it, up to `</think>`; an answer may mention the tag in quotes."""
    return "</think>" in content and (content.lstrip().startswith("<think>") or not _QUOTED_TAG.search(content))


def written_texts(message: dict[str, Any]) -> Iterator[str]:
    """Yield the texts that a model wrote in a turn: thoughts, content, names and values of calls, but no think tags."""
    thoughts, _, answer = message["content"].rpartition("</think>")
    yield thoughts.lstrip().removeprefix("<think>")
    yield answer.lstrip().removeprefix("<think>")
    yield message.get(REASONING, "")
    for call in message.get("tool_calls") or ():
        function = call_function(call)
        leaves = _leaves([function.get("name"), function.get("arguments")])
        yield from (text for text in leaves if isinstance(text, str))


def has_call(text: str, call: Any) -> bool:
    """Return whether a text has the call's name and its arguments, as JSON or as plain values."""
    function = call_function(call)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name or name not in text:
        return False
    # Arguments that are no JSON object stay text: a template that quotes them writes another text than the model.
    if isinstance(arguments, str):
        return arguments in text and (not arguments or json.dumps(arguments) not in text)
    # A template that writes `{{ arguments }}` shows Python's repr, which no model has written.
    is_python = isinstance(arguments, dict | list) and arguments and str(arguments) in text
    if is_python and str(arguments) != json.dumps(arguments, ensure_ascii=False):
        return False
    # The arguments twice encoded, JSON inside of a JSON string, are not what was written either.
    quoted = json.dumps(json.dumps(arguments, ensure_ascii=False), ensure_ascii=False)
    return quoted not in text and all(_has_value(text, value) for value in _leaves(arguments))


def mark_last_value(value: Any) -> tuple[Any, str] | None:
    """Return a call's arguments with a mark at the end of the last value, and the mark; None where there is no value.

    A number replaces what is not text.
    """
    if isinstance(value, str):
        return value + TEXT_MARK, TEXT_MARK
    if not isinstance(value, dict | list):
        return _NUMBER_MARK, str(_NUMBER_MARK)
    if not value:
        return None
    # The value that is rendered last, whatever the template writes between the values.
    last = next(reversed(value)) if isinstance(value, dict) else -1
    marked = mark_last_value(value[last])
    if marked is None:
        return None
    if isinstance(value, dict):
        return {**value, last: marked[0]}, marked[1]
    return [*value[:-1], marked[0]], marked[1]


def call_words(call: Any) -> list[str]:
    """Return the name and the values of a call, each in all forms in which templates write it."""
    function = call_function(call)
    name, arguments = function.get("name"), function.get("arguments")
    leaves = [arguments] if isinstance(arguments, str) else _leaves(arguments)
    return [word for value in (name, *leaves) for word in _value_forms(value) if word]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (str(key), *_leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _value_forms(value: Any) -> list[str]:
    """Return how templates write a value: as it is, as JSON, as escaped JSON, trimmed."""
    if isinstance(value, str):
        plain, escaped = (json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
        return [value, plain, escaped, value.strip()]
    return [json.dumps(value), str(value)]


def _has_value(text: str, value: Any) -> bool:
    return any(form in text for form in _value_forms(value))
