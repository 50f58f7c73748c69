"""Contents of messages as JSON text: what they hold, and one form for all of a file, which trainers' loaders need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from rollmill.corpus.record import NOTHING, Message

Form = Literal["text", "parts"]
"""`text`: every content is a string, parts of text joined, a line each. `parts`: every content is a list of parts."""

Part = dict[str, Any]
Place = Callable[[str], str]
"""An image's path as recorded -> as the file shall have it."""

EXTRAS = ("tool_calls", "tool_call_id", "name", "reasoning_content")
"""What a message may have beside role and content."""

_MEDIA = ("image", "video", "audio")
_FILE_KEYS = ("url", "path", *_MEDIA, *(f"{kind}_url" for kind in _MEDIA))
_NO_EXTRAS = (NOTHING,) * len(EXTRAS)
_QUOTE, _BRACKET = b'"['
_SHORT = {"\t": "t", "\n": "n", "\f": "f", "\r": "r"}
_SPACES = [c for c in map(chr, range(0x10000)) if c.isspace()]


def _spellings(space: str) -> Iterator[bytes]:
    """The ways in which JSON may write one character of white space."""
    yield rb"\\u(?i:%04x)" % ord(space)
    if space in _SHORT:
        yield rb"\\" + _SHORT[space].encode()
    if space >= " ":
        yield re.escape(space.encode())


# The lookahead answers at once for what begins with a visible ASCII character, as most does.
_BLANK = re.compile(
    rb'"(?![!#-\[\]-~])(?:' + b"|".join(spelling for space in _SPACES for spelling in _spellings(space)) + b')*"'
)


class NeedsPartsError(Exception):
    """A content holds more than text: the file must be written in parts."""


class OutsideImageError(Exception):
    """A content shows an image file from a folder that its rollouts may not name files in."""


class Shaped(NamedTuple):
    """Messages in one form, the images that they show in order, and what a loader will see as columns."""

    turns: list[Message]
    images: list[str]
    columns: set[str]


def is_string(content: msgspec.Raw) -> bool:
    """Whether JSON text is a string's."""
    return len(content) > 0 and memoryview(content)[0] == _QUOTE


def is_list(content: msgspec.Raw) -> bool:
    """Whether JSON text is a list's."""
    return len(content) > 0 and memoryview(content)[0] == _BRACKET


def is_absent(content: msgspec.Raw) -> bool:
    """Whether nothing was recorded, or null."""
    return len(content) == 0 or (len(content) == 4 and bytes(content) == b"null")


def parts_of(content: msgspec.Raw) -> list[Part] | None:
    """A list content's parts, bare strings as parts of text; None where an item is neither."""
    parts = [{"type": "text", "text": item} if isinstance(item, str) else item for item in msgspec.json.decode(content)]
    if not all(isinstance(part, dict) for part in parts):
        return None
    return [{"type": "text", **part} if isinstance(part.get("text"), str) else part for part in parts]


def is_readable(content: msgspec.Raw) -> bool:
    """Whether a content is a string, a list of parts, or null."""
    return is_string(content) or is_absent(content) or (is_list(content) and parts_of(content) is not None)


def is_blank(content: msgspec.Raw) -> bool:
    """Whether a content says nothing: null, white space (as `str.isspace` knows it), or parts of such text."""
    if is_string(content):
        return _BLANK.fullmatch(content) is not None
    if not is_list(content):
        return is_absent(content)
    parts = parts_of(content)
    return parts is not None and all(_is_text(part) and not part["text"].strip() for part in parts)


def shows_images(turns: list[Message]) -> bool:
    """Whether any of the messages has a part that is an image."""
    lists = (parts_of(turn.content) or [] for turn in turns if is_list(turn.content))
    return any(part.get("type") == "image" for parts in lists for part in parts)


def join_contents(contents: list[msgspec.Raw]) -> msgspec.Raw:
    """Several readable contents as one: strings with a blank line between them, else all their parts."""
    present = [content for content in contents if not is_absent(content)] or contents[:1]
    if len(present) == 1:
        return present[0]
    if all(map(is_string, present)):
        return msgspec.Raw(b'"' + b"\\n\\n".join(bytes(content)[1:-1] for content in present) + b'"')
    inner = [bytes(_as_parts(content))[1:-1].strip() for content in present]
    return msgspec.Raw(b"[" + b",".join(text for text in inner if text) + b"]")


def shape(turns: list[Message], form: Form, place: Place) -> Shaped:
    """Messages with their contents in one form, nothing decoded that can be copied.

    Raises `NeedsPartsError` where the form is `text` and a content holds a part that is not text, and what `place`
    raises.
    """
    images: list[str] = []
    columns: set[str] = set()
    shaped = []
    for turn in turns:
        if form == "text" and is_string(turn.content) and is_bare(turn):
            shaped.append(turn)
            continue
        if is_list(turn.content):
            turn = msgspec.structs.replace(turn, content=_shape_list(turn.content, form, place, images, columns))
        elif form == "parts" and not is_absent(turn.content):
            turn = msgspec.structs.replace(turn, content=_as_parts(turn.content))
        columns.update(_extra_columns(turn))
        shaped.append(turn)
    return Shaped(shaped, images, columns)


def _shape_list(content: msgspec.Raw, form: Form, place: Place, images: list[str], columns: set[str]) -> msgspec.Raw:
    parts = parts_of(content) or []
    if form == "text":
        if not all(map(_is_text, parts)):
            raise NeedsPartsError
        return _encode("\n".join(part["text"] for part in parts))
    shaped = [_shape_part(part, place, images) for part in parts]
    for part in shaped:
        if not _is_text(part):
            columns.update(_paths(part, "content"))
    return _encode(shaped)


def _shape_part(part: Part, place: Place, images: list[str]) -> Part:
    """Text less what an agent hung on it, such as marks for a cache; of an image the mark that TRL puts one in for."""
    if _is_text(part):
        return {"type": "text", "text": part["text"]}
    if part.get("type") == "image" and isinstance(part.get("image"), str):
        images.append(place(part["image"]))
        return {"type": "image"}
    for name in _named_files(part):
        place(name)
    return part


def _named_files(part: Part) -> Iterator[str]:
    """Yield the paths and URLs by which chat templates and loaders find an image, a video or a sound."""
    for key in _FILE_KEYS:
        value = part.get(key)
        value = value.get("url") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            yield value


def _as_parts(content: msgspec.Raw) -> msgspec.Raw:
    if is_list(content):
        return _encode(parts_of(content))
    return msgspec.Raw(b'[{"type":"text","text":' + bytes(content) + b"}]")


def _is_text(part: Part) -> bool:
    return part.get("type") == "text" and isinstance(part.get("text"), str)


def _encode(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def is_bare(turn: Message) -> bool:
    """Whether a message has nothing beside role and content."""
    extras = turn.tool_calls, turn.tool_call_id, turn.name, turn.reasoning_content
    return extras == _NO_EXTRAS


def tidy(turn: Message) -> Message:
    """The message with empty extras left out (a loader makes columns of nothing of them), and on one line."""
    if is_bare(turn):
        return turn
    kept = {name: NOTHING if _is_empty(value := getattr(turn, name)) else _on_one_line(value) for name in EXTRAS}
    return msgspec.structs.replace(turn, **kept)


def _is_empty(value: msgspec.Raw) -> bool:
    return is_absent(value) or (is_list(value) and not bytes(value)[1:-1].strip())


def _on_one_line(value: msgspec.Raw) -> msgspec.Raw:
    text = bytes(value)
    return msgspec.Raw(msgspec.json.format(text, indent=-1)) if b"\n" in text else value


def _extra_columns(turn: Message) -> Iterator[str]:
    if is_bare(turn):
        return
    for name in EXTRAS:
        if len(value := getattr(turn, name)):
            yield from _paths(msgspec.json.decode(value), name)


def _paths(value: object, path: str) -> Iterator[str]:
    """The places and kinds of all that a value holds; null and empty lists have none."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, f"{path}[]")
    elif value is not None:
        yield f"{path}: {type(value).__name__}"
