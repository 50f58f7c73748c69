"""Classify contents of messages, which are raw JSON, and convert those of a file to one type.

`datasets` infers one Arrow type for each column of a file, from its first megabytes: a content that is a string in one
row and a list in another, or a field that first appears later, makes loading fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import NOTHING, is_absent

Form = Literal["text", "parts", "images"]
"""`text`: every content is a string, in which parts of text are joined, a line each. `parts`: every content is a list
of parts, none of them an image (video and audio may be). `images`: images, too, each a part `{"type": "image"}`, whose
paths or URLs the row lists in its column `images`."""

Part = dict[str, Any]
MediaPath = Callable[[str], str]
"""Maps the path of an image (or video, audio) in the rollout to the path to write in the export; URLs stay.

Raises `OutsideImageError` for a file outside the allowed folders.
"""

EXTRAS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "weight", "sent_arguments", "stop_text")
"""Fields of a message beside role and content, in the order of the fields of `Message`."""

_MEDIA = ("image", "video", "audio")
_FILE_KEYS = ("url", "path", *_MEDIA, *(f"{kind}_url" for kind in _MEDIA))
_extra_values = attrgetter(*EXTRAS)
_NO_EXTRAS = (NOTHING,) * len(EXTRAS)
_QUOTE, _BRACKET = ord('"'), ord("[")
_SHORT_ESCAPES = {"\t": "t", "\n": "n", "\f": "f", "\r": "r"}
_SPACES = [c for c in map(chr, range(0x10000)) if c.isspace()]


def _spellings(space: str) -> Iterator[bytes]:
    """Yield the ways in which JSON may spell one character of white space."""
    yield rb"\\u(?i:%04x)" % ord(space)
    if space in _SHORT_ESCAPES:
        yield rb"\\" + _SHORT_ESCAPES[space].encode()
    if space >= " ":
        yield re.escape(space.encode())


# White space in any spelling of JSON, so that no content has to be decoded to see that it is blank. The lookahead fails
# at once for text that begins with a visible ASCII character, as most does.
_BLANK = re.compile(
    rb'"(?![!#-\[\]-~])(?:' + b"|".join(spelling for space in _SPACES for spelling in _spellings(space)) + b')*"'
)


class NeedsPartsError(Exception):
    """A content has more than text: the file must be written in another form, `parts` or `images`."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form


class UnnamedImageError(Exception):
    """An image has neither a file nor an address."""


class OutsideImageError(Exception):
    """A content names a media file outside the allowed folders; a `MediaPath` raises it."""


class ConvertedMessages(NamedTuple):
    """Messages with contents in one form, their images in order, and the columns that a loader will infer.

    `columns` leaves out role, content, and parts of text, which all rows of a form have.
    """

    turns: list[Message]
    images: list[str]
    columns: set[str]


def is_string(content: msgspec.Raw) -> bool:
    """Return whether JSON text is a string."""
    return len(content) > 0 and memoryview(content)[0] == _QUOTE


def is_list(content: msgspec.Raw) -> bool:
    """Return whether JSON text is a list."""
    return len(content) > 0 and memoryview(content)[0] == _BRACKET


def decode_parts(content: msgspec.Raw) -> list[Part] | None:
    """Return the parts of a list content, bare strings as text parts; None if an item is neither string nor object."""
    parts = [{"type": "text", "text": item} if isinstance(item, str) else item for item in msgspec.json.decode(content)]
    if not all(isinstance(part, dict) for part in parts):
        return None
    # A part with text but no type is a part of text; a type that is there stays.
    return [{"type": "text", **part} if isinstance(part.get("text"), str) else part for part in parts]


def is_readable(content: msgspec.Raw) -> bool:
    """Return whether a content is a string, a list of parts, or null."""
    return is_string(content) or is_absent(content) or (is_list(content) and decode_parts(content) is not None)


def is_blank(content: msgspec.Raw) -> bool:
    """Return whether a content is empty: null, white space (as in `str.isspace`), or parts of such text."""
    if is_string(content):
        return _BLANK.fullmatch(content) is not None
    if not is_list(content):
        return is_absent(content)
    parts = decode_parts(content)
    return parts is not None and all(_is_text(part) and not part["text"].strip() for part in parts)


def has_images(turns: list[Message]) -> bool:
    """Return whether any of the messages has a part that is an image."""
    lists = (decode_parts(turn.content) or [] for turn in turns if is_list(turn.content))
    return any(_is_image(part) for parts in lists for part in parts)


def join_contents(contents: list[msgspec.Raw]) -> msgspec.Raw:
    """Return readable contents as one: strings with a blank line between them, else all their parts."""
    present = [content for content in contents if not is_absent(content)] or contents[:1]  # all null: keep one null
    if len(present) == 1:
        return present[0]
    # A blank line, since these are texts of several messages; parts of one message are joined by a line break.
    # Strings are joined as JSON, without decoding: the escapes of both stay valid.
    if all(map(is_string, present)):
        return msgspec.Raw(b'"' + b"\\n\\n".join(bytes(content)[1:-1] for content in present) + b'"')
    inner = [bytes(_as_parts(content))[1:-1].strip() for content in present]
    return msgspec.Raw(b"[" + b",".join(text for text in inner if text) + b"]")


def convert_contents(turns: list[Message], form: Form, media_path: MediaPath) -> ConvertedMessages:
    """Return messages with their contents in one form; text that can be copied is not decoded.

    Raises `NeedsPartsError` if a content needs a richer form (any part but text in the form `text`, an image in
    `parts`), `UnnamedImageError` for an image without path and URL, and whatever `media_path` raises.
    """
    images: list[str] = []
    columns: set[str] = set()
    converted = []
    for turn in turns:
        # Nearly all turns: nothing to convert, and no columns beside role and content.
        if form == "text" and is_string(turn.content) and is_bare(turn):
            converted.append(turn)
            continue
        if is_list(turn.content):
            turn = msgspec.structs.replace(turn, content=_convert_list(turn.content, form, media_path, images, columns))
        elif form != "text" and not is_absent(turn.content):
            turn = msgspec.structs.replace(turn, content=_as_parts(turn.content))
        if not is_bare(turn):
            _add_extra_columns(turn, columns)
        converted.append(turn)
    return ConvertedMessages(converted, images, columns)


def _convert_list(
    content: msgspec.Raw, form: Form, media_path: MediaPath, images: list[str], columns: set[str]
) -> msgspec.Raw:
    """Return a list content in one form.

    Args:
        content: JSON of a list of parts.
        form: the form of the file.
        media_path: maps the recorded path of an image to the file's.
        images: the paths of the row's images are appended here.
        columns: the columns of parts other than text are added here.
    """
    parts = decode_parts(content) or []
    if form == "text":
        if not all(map(_is_text, parts)):
            raise NeedsPartsError("images" if any(map(_is_image, parts)) else "parts")
        return _encode("\n".join(part["text"] for part in parts))
    if form == "parts" and any(map(_is_image, parts)):
        raise NeedsPartsError("images")
    converted = [_convert_part(part, media_path, images) for part in parts]
    for part in converted:
        if not _is_text(part):
            _add_columns(part, "content", columns)
    return _encode(converted)


def _convert_part(part: Part, media_path: MediaPath, images: list[str]) -> Part:
    """Return a part as training needs it.

    Text loses other fields, such as marks for a prompt cache; an image becomes the placeholder that TRL expects.
    """
    if _is_text(part):
        return {"type": "text", "text": part["text"]}
    if _is_image(part):
        if not isinstance(part.get("image"), str):
            raise UnnamedImageError
        images.append(media_path(part["image"]))
        return {"type": "image"}
    # Only checked: `media_path` raises for a file outside the allowed folders.
    for name in _named_files(part):
        media_path(name)
    return part


def _named_files(part: Part) -> Iterator[str]:
    """Yield the paths and URLs by which chat templates and loaders find an image, a video or audio."""
    for key in _FILE_KEYS:
        value = part.get(key)
        value = value.get("url") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            yield value


def _as_parts(content: msgspec.Raw) -> msgspec.Raw:
    if is_list(content):
        return _encode(decode_parts(content))
    return msgspec.Raw(b'[{"type":"text","text":' + bytes(content) + b"}]")


def _is_text(part: Part) -> bool:
    return part.get("type") == "text" and isinstance(part.get("text"), str)


def _is_image(part: Part) -> bool:
    return part.get("type") in ("image", "image_url", "input_image")


def _encode(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def is_bare(turn: Message) -> bool:
    """Return whether a message has no fields beside role and content."""
    return bool(_extra_values(turn) == _NO_EXTRAS)


def drop_empty_fields(turn: Message) -> Message:
    """Return the message without empty extra fields, the others on one line each, as JSON Lines needs them.

    A loader would infer a column from an empty field.
    """
    values = _extra_values(turn)
    if not any(map(_is_empty_or_multiline, values)):
        return turn
    kept = (NOTHING if _is_empty(value) else _on_one_line(value) for value in values)
    # `EXTRAS` has the order of the fields of `Message`.
    return Message(turn.role, turn.content, *kept)


def _is_empty_or_multiline(value: msgspec.Raw) -> bool:
    return value is not NOTHING and (_is_empty(value) or b"\n" in bytes(value))


def _is_empty(value: msgspec.Raw) -> bool:
    return is_absent(value) or (is_list(value) and not bytes(value)[1:-1].strip())


def _on_one_line(value: msgspec.Raw) -> msgspec.Raw:
    text = bytes(value)
    return msgspec.Raw(msgspec.json.format(text, indent=-1)) if b"\n" in text else value


def _add_extra_columns(turn: Message, columns: set[str]) -> None:
    for name, value in zip(EXTRAS, _extra_values(turn), strict=True):
        if value is not NOTHING and len(value):
            _add_columns(msgspec.json.decode(value), name, columns)


@lru_cache(16)  # all rollouts of a run have the same tools
def find_columns(value: bytes, name: str) -> frozenset[str]:
    """Return the columns that a loader infers from a field beside the messages, given as JSON."""
    columns: set[str] = set()
    _add_columns(msgspec.json.decode(value), name, columns)
    return frozenset(columns)


def _add_columns(value: object, path: str, columns: set[str]) -> None:
    """Add the path and type of every value inside, `content.type: str`; null and empty lists have none."""
    if isinstance(value, dict):
        for key, item in value.items():
            if type(item) is str:  # most values: saves a call
                columns.add(f"{path}.{key}: str")
            else:
                _add_columns(item, f"{path}.{key}", columns)
    elif isinstance(value, list):
        for item in value:
            _add_columns(item, f"{path}[]", columns)
    elif value is not None:
        columns.add(f"{path}: {type(value).__name__}")
