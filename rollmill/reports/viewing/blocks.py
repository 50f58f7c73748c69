"""Blocks: a message's content split into parts that are displayed differently (prose, code, commands, images)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rollmill.terminal.escapes import visible

Kind = Literal["text", "code", "output", "command", "call", "image", "reasoning", "diff", "left_out"]

_FENCE = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^`]*+)")
_COMMAND_KEYS = ("command", "cmd", "code", "script", "input")
_OUTPUT_STARTS = ("<returncode>", "<output>")
_TOOL_ROLES = frozenset({"tool", "function", "ipython"})
_DEEPEST = 8
_NEAR = 160


class Block(NamedTuple):
    """A piece of a message; its text has no hidden characters (see `escapes.visible`)."""

    kind: Kind
    """`output`: of a program. `command`, `call`: of a tool call. `left_out`: the number of characters cut."""
    text: str
    label: str = ""
    """Language of `code`, tool of `command` and `call`."""


def message_blocks(role: str, content: Any, tool_calls: Any = None, reasoning: Any = None) -> list[Block]:
    """Return the blocks of one message in reading order: reasoning, content, tool calls.

    Nothing is left out, and no value raises.

    Args:
        role: the message's role.
        content: a string, a list of parts (OpenAI's, Anthropic's or this project's), or null; any other value is
            displayed as JSON.
        tool_calls: a list of calls, or one call.
        reasoning: as `content`.
    """
    blocks = [block._replace(kind="reasoning") for block in _content(reasoning, "output", 0)]
    blocks += _content(content, "output" if role in _TOOL_ROLES else "text", 0)
    if not isinstance(tool_calls, list):
        tool_calls = [tool_calls] if tool_calls else []
    return [*blocks, *(_tool_call(call) for call in tool_calls)]


def split_fences(text: str) -> Iterator[Block]:
    """Yield prose and code of a Markdown text; an unclosed fence reaches to the end. Blank prose is dropped."""
    lines: list[str] = []
    fence = label = ""
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line)
        if match and not fence:
            yield from _prose(lines)
            fence, label, lines = match[1], match[2].strip(), []
        elif match and match[1].startswith(fence) and not match[2].strip():
            yield Block("code", "\n".join(lines), label)
            fence, lines = "", []
        else:
            lines.append(line)
    if fence:
        yield Block("code", "\n".join(lines), label)
    else:
        yield from _prose(lines)


def shorten(blocks: Sequence[Block], longest: int) -> list[Block]:
    """Return at most `longest` characters of text: the first two thirds, a `left_out` block, the end.

    Cuts move inwards to the nearest line break where one is near.
    """
    length = sum(len(block.text) for block in blocks)
    if length <= longest:
        return list(blocks)
    head = longest * 2 // 3
    tail = length - (longest - head)
    first: list[Block] = []
    last: list[Block] = []
    start = 0
    for block in blocks:
        end = start + len(block.text)
        if start < head:
            first.append(block if end <= head else block._replace(text=_head(block.text[: head - start])))
        if end > tail:
            last.append(block if start >= tail else block._replace(text=_tail(block.text[tail - start :])))
        start = end
    left_out = length - sum(len(block.text) for block in [*first, *last])
    return [*first, Block("left_out", f"{left_out:,}"), *last]


def _head(text: str) -> str:
    end = text.rfind("\n", max(len(text) - _NEAR, 0))
    return text if end < 0 else text[:end]


def _tail(text: str) -> str:
    return text[text.find("\n", 0, _NEAR) + 1 :]


def json_text(value: Any) -> str:
    """Return any JSON value in its most readable form: strings without quotes, other values as indented JSON."""
    if isinstance(value, str):
        return visible(value)
    try:
        return visible(json.dumps(value, ensure_ascii=False, indent=2))
    except (RecursionError, ValueError, TypeError):
        return "(a value that is nested too deeply to be shown)"


def _prose(lines: list[str]) -> Iterator[Block]:
    text = "\n".join(lines)
    if text.strip():
        yield Block("text", text.strip("\n"))


def _content(value: Any, kind: Kind, depth: int) -> Iterator[Block]:
    if value is None:
        return
    if isinstance(value, str):
        yield from _string(visible(value), kind)
    elif isinstance(value, list) and depth < _DEEPEST:
        for part in value:
            yield from _content(part, kind, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        yield from _part(value, kind, depth + 1)
    else:
        yield Block("output", json_text(value))


def _string(text: str, kind: Kind) -> Iterator[Block]:
    if kind == "output" or text.lstrip().startswith(_OUTPUT_STARTS):
        if text.strip():
            yield Block("output", text.strip("\n"))
    else:
        yield from split_fences(text)


def _part(part: dict[str, Any], kind: Kind, depth: int) -> Iterator[Block]:
    match part:
        case {"type": "thinking", "thinking": str(thought)} | {"type": "reasoning", "text": str(thought)}:
            yield Block("reasoning", visible(thought))
        case {"type": "image_url", "image_url": {"url": str(image)}} | {"type": "image_url", "image_url": str(image)}:
            yield _image(image)
        case {"type": "image" | "input_image", "image": str(image)} | {"type": "input_image", "image_url": str(image)}:
            yield _image(image)
        case {"type": "image", "source": {"data": str(data), "media_type": str(media_type)}}:
            yield _image(f"data:{media_type};base64,{data}")
        case {"type": "tool_use"}:
            yield _tool_call(part)
        case {"type": "tool_result", "content": content}:
            yield from _content(content, "output", depth)
        case {"text": str(text)}:
            yield from _string(visible(text), kind)
        case _:
            yield Block("output", json_text(part))


def _image(address: str) -> Block:
    if address.startswith("data:"):
        media_type = visible(address[5:].partition(",")[0].partition(";")[0]) or "data"
        return Block("image", f"[image: {media_type}, {len(address):,} characters of data]")
    return Block("image", f"[image: {visible(address)}]")


def _tool_call(call: Any) -> Block:
    """Return a tool call: the bare command where the tool takes one, else one argument per line."""
    match call:
        case {"function": {"name": str(name), **function}}:
            arguments: Any = function.get("arguments")
        case {"name": str(name)}:
            arguments = call.get("input", call.get("arguments"))
        case _:
            return Block("call", json_text(call))
    name = visible(name)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return Block("call", visible(arguments), name)
    if not isinstance(arguments, dict):
        return Block("call", "" if arguments is None else json_text(arguments), name)
    command = next((arguments[key] for key in _COMMAND_KEYS if key in arguments), None)
    if len(arguments) == 1 and isinstance(command, str):
        return Block("command", visible(command), name)
    return Block("call", "\n".join(_argument(key, value) for key, value in arguments.items()), name)


def _argument(key: str, value: Any) -> str:
    text = json_text(value)
    return f"{visible(key)}:\n{text}" if "\n" in text else f"{visible(key)}: {text}"
