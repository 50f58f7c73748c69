"""Cutting the rows out of large JSON documents without parsing them, and without holding them.

Only the structure outside strings is looked at, a few megabytes at a time, by numpy; a row stays the bytes that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from rollmill.files.raw_row import BYTE_ORDER_MARK, LARGEST_ROW, LIST_KEYS, RawRow

_CHUNK = 4 << 20
_QUOTE, _BACKSLASH, _COMMA, _BRACKET = b'"\\,['
# Tables by the value of a byte: by how much it changes the depth, and whether it is looked at at all.
_STEP = np.zeros(256, dtype=np.int64)
_STEP[list(b"{[")] = 1
_STEP[list(b"}]")] = -1
_MARKED = _STEP != 0
_MARKED[[_QUOTE, _COMMA]] = True
_BETWEEN = b" \t\r\n\x1e"
"""What stands between documents: white space, and the sign that JSON text sequences have for it."""
_KEY_BEFORE = re.compile(rb'"([^"\\]*)"\s*:\s*$')


class _JsonText:
    """JSON as it comes from a file, with the depth of what has come so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._depth = 0
        self._in_string = False

    def _read(self) -> bytes:
        """Read the next megabytes; never torn within a run of backslashes, whose number decides what they mean."""
        text = self._file.read(_CHUNK)
        while text.endswith(b"\\") and (more := self._file.read(_CHUNK)):
            text += more
            _check_length(text, "a run of backslashes")
        return text

    def _marks(self, text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where brackets, braces and commas stand outside strings, and how deep it is after each."""
        every = _bytes(text)
        where = np.flatnonzero(_MARKED[every])
        kinds = every[where]
        quotes = kinds == _QUOTE
        if b"\\" in text:
            quotes[quotes] = ~_escaped(every, where[quotes])
        # Outside of strings are the marks before which an even number of quotes was opened or closed.
        outside = ~quotes & (kinds != _QUOTE) & ((np.cumsum(quotes) + self._in_string) % 2 == 0)
        self._in_string = bool((int(quotes.sum()) + self._in_string) % 2)
        levels = self._depth + np.cumsum(_STEP[kinds[outside]])
        self._depth = int(levels[-1]) if levels.size else self._depth
        return where[outside], levels


class JsonDocuments(_JsonText):
    """Whole documents that stand one behind the other, on as many lines as they like, each a row.

    Iterating is possible once. What is cut off, or is no document, is a row as far as it comes. Raises `ValueError` for
    more than `LARGEST_ROW` bytes in one.
    """

    def __iter__(self) -> Iterator[RawRow]:
        number, pending = 0, b""
        while text := self._read():
            text = text.removeprefix(BYTE_ORDER_MARK) if not number and not pending else text
            at = 0
            where, levels = self._marks(text)
            for end in where[(levels <= 0) & (_STEP[_bytes(text)[where]] < 0)].tolist():
                number += 1
                yield RawRow(number, (pending + text[at : end + 1]).strip(_BETWEEN))
                at, pending = end + 1, b""
            pending += text[at:]
            _check_length(pending, f"document {number + 1}")
        if pending.strip(_BETWEEN):
            yield RawRow(number + 1, pending.strip(_BETWEEN))


class JsonArray(_JsonText):
    """The rows of one document: an array, or the first array under one of `LIST_KEYS` in an object.

    Iterating, possible once, yields what stands between the array's commas, be it JSON or not. A document that is cut
    off yields what it has of its last row, and then an empty one. Raises `ValueError` where there is no such array,
    where what is around it is not JSON, and for more than `LARGEST_ROW` bytes in a row or around the rows.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.rest: dict[str, object] = {}
        """What else the object holds; complete once all rows were read."""

    def __iter__(self) -> Iterator[RawRow]:
        head, text = self._find()
        inside, number, pending = self._depth, 0, b""
        while text:
            at = 0
            where, levels = self._marks(text)
            # A row ends at a comma that stands in the array itself, the last one at the bracket that closes it.
            ends = (levels < inside) | ((levels == inside) & (_bytes(text)[where] == _COMMA))
            for end, level in zip(where[ends].tolist(), levels[ends].tolist(), strict=True):
                row = RawRow(number + 1, (pending + text[at:end]).strip())
                if row.text or level == inside:  # nothing before the closing bracket is no row
                    number += 1
                    yield row
                if level < inside:
                    # What stands around the rows is parsed as one document, with an empty array in their place.
                    if not self._read_rest(head + text[end:]):
                        yield RawRow(number + 1, b"")
                    return
                at, pending = end + 1, b""
            pending += text[at:]
            _check_length(pending, f"row {number + 1}")
            text = self._read()
        # The document is cut off: its last row as far as it came, and an empty one, which shows that more was to come.
        if pending.strip():
            yield RawRow(number := number + 1, pending.strip())
        yield RawRow(number + 1, b"")

    def has_rows(self) -> bool:
        """Return whether there is such an array; what was read to find it out is gone."""
        try:
            self._find()
        except ValueError:
            return False
        return True

    def _find(self) -> tuple[bytes, bytes]:
        """Return all up to the array's opening bracket, that included, and what was read beyond it."""
        head = b""
        while text := self._read():
            text = text.removeprefix(BYTE_ORDER_MARK) if not head else text
            where, levels = self._marks(text)
            ended = np.flatnonzero(levels <= 0)  # what follows is another document's
            where, levels = (where[: ended[0]], levels[: ended[0]]) if ended.size else (where, levels)
            blank = not head.strip()
            for offset in where[(levels <= 2) & (_bytes(text)[where] == _BRACKET)].tolist():
                # The key may stand in what was read before; longer ones than this are none of `LIST_KEYS`.
                key = _KEY_BEFORE.search((head[-200:] + text[max(0, offset - 200) : offset])[-200:])
                whole = blank and offset == len(text) - len(text.lstrip())
                if whole or (key and key[1].decode("utf-8", "replace") in LIST_KEYS):
                    # `_marks` has counted to the end of `text`; the rows are counted again from the bracket on.
                    self._depth, self._in_string = (1 if whole else 2), False
                    return head + text[:offset] + b"[", text[offset + 1 :] or self._read()
            head += text
            if ended.size:
                break
            _check_length(head, "what stands before its rows")
        value = orjson.loads(head)
        raise ValueError(
            f"it holds neither a JSON array nor an object with one under {', '.join(LIST_KEYS)}: {_kind(value)}"
        )

    def _read_rest(self, around: bytes) -> bool:
        """Read what follows the array; return whether the document has an end."""
        try:
            around += self._file.read(LARGEST_ROW)
            _check_length(around, "what stands around its rows")
            value = orjson.loads(around)
        except orjson.JSONDecodeError as error:
            if "unexpected end of data" in str(error):
                return False
            raise
        self.rest = {key: item for key, item in value.items() if item != []} if isinstance(value, dict) else {}
        return True


def _check_length(text: bytes, what: str) -> None:
    if len(text) > LARGEST_ROW:
        raise ValueError(f"{what} has more than {LARGEST_ROW:,} bytes, or a quote too many")


def _bytes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, dtype=np.uint8)


def _escaped(every: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which places follow an odd number of backslashes: a quote there is part of its string."""
    slashes = np.flatnonzero(every == _BACKSLASH)
    begins = slashes[np.diff(slashes, prepend=-2) != 1]  # of each run of backslashes
    after = (places > 0) & (every[places - 1] == _BACKSLASH)
    begin = begins[np.searchsorted(begins, places, side="left") - 1]
    return cast(NDArray[np.bool_], after & ((places - begin) % 2 == 1))


def _kind(value: object) -> str:
    return (
        f"an object with {', '.join(map(repr, list(value)[:10]))}"
        if isinstance(value, dict)
        else f"a {type(value).__name__}"
    )
