"""Split large JSON documents into the bytes of their rows, without parsing them and without loading them completely.

numpy finds brackets, commas and quotes in a few megabytes at a time. From the quotes follows what is inside strings,
from the brackets the nesting depth, and from both where rows end. Rows are parsed later, by whoever reads them.
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
# Lookup tables by byte value: the change of depth, and whether the byte matters for the structure.
_STEP = np.zeros(256, dtype=np.int64)
_STEP[list(b"{[")] = 1
_STEP[list(b"}]")] = -1
_MARKED = _STEP != 0
_MARKED[[_QUOTE, _COMMA]] = True
_BETWEEN = b" \t\r\n\x1e"
"""Separators of documents: white space, and the record separator of JSON text sequences (RFC 7464)."""
_KEY_BEFORE = re.compile(rb'"([^"\\]*)"\s*:\s*$')


class _JsonText:
    """A JSON file that is read in chunks, with the nesting depth at the end of the last chunk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._depth = 0
        self._in_string = False

    def _read(self) -> bytes:
        """Read the next chunk, which never ends within a run of backslashes: their number decides what they escape."""
        text = self._file.read(_CHUNK)
        while text.endswith(b"\\") and (more := self._file.read(_CHUNK)):
            text += more
            _check_length(text, "a run of backslashes")
        return text

    def _marks(self, text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the offsets of brackets, braces and commas outside strings, and the depth after each; both int64."""
        values = _bytes(text)
        offsets = np.flatnonzero(_MARKED[values])
        kinds = values[offsets]
        quotes = kinds == _QUOTE
        if b"\\" in text:
            quotes[quotes] = ~_escaped(values, offsets[quotes])
        # A mark is outside strings if an even number of unescaped quotes precede it; the last chunk may have ended
        # inside a string, which counts as one quote more.
        open_quotes = 1 if self._in_string else 0
        outside = ~quotes & (kinds != _QUOTE) & ((np.cumsum(quotes) + open_quotes) % 2 == 0)
        self._in_string = (int(quotes.sum()) + open_quotes) % 2 == 1
        levels = self._depth + np.cumsum(_STEP[kinds[outside]])
        self._depth = int(levels[-1]) if levels.size else self._depth
        return offsets[outside], levels


class JsonDocuments(_JsonText):
    """The documents of a file of concatenated JSON documents, on any number of lines, each a row.

    It can be iterated once. A document that is cut off, or text that is not a document, becomes a row as it is. Raises
    `ValueError` for a document of more than `LARGEST_ROW` bytes.
    """

    def __iter__(self) -> Iterator[RawRow]:
        number, pending = 0, b""
        while text := self._read():
            text = text.removeprefix(BYTE_ORDER_MARK) if not number and not pending else text
            start = 0
            offsets, levels = self._marks(text)
            # A document ends at a closing bracket that returns to depth 0.
            for end in offsets[(levels <= 0) & (_STEP[_bytes(text)[offsets]] < 0)].tolist():
                number += 1
                yield RawRow(number, (pending + text[start : end + 1]).strip(_BETWEEN))
                start, pending = end + 1, b""
            pending += text[start:]
            _check_length(pending, f"document {number + 1}")
        if pending.strip(_BETWEEN):
            yield RawRow(number + 1, pending.strip(_BETWEEN))


class JsonArray(_JsonText):
    """The rows of one document: of an array, or of the first array under one of `LIST_KEYS` in an object.

    It can be iterated once, and yields the bytes between the array's commas, whether or not they are JSON. A document
    that is cut off yields the rest of its last row, and then an empty row. Raises `ValueError` where there is no such
    array, where the text around it is not JSON, and for more than `LARGEST_ROW` bytes in a row or around the rows.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.rest: dict[str, object] = {}
        """The object's other keys and values; complete after the iteration."""

    def __iter__(self) -> Iterator[RawRow]:
        head, text = self._find_array()
        array_depth, number, pending = self._depth, 0, b""
        while text:
            start = 0
            offsets, levels = self._marks(text)
            # A row ends at a comma at the depth of the array, the last one at the bracket that closes the array.
            ends = (levels < array_depth) | ((levels == array_depth) & (_bytes(text)[offsets] == _COMMA))
            for end, level in zip(offsets[ends].tolist(), levels[ends].tolist(), strict=True):
                row = RawRow(number + 1, (pending + text[start:end]).strip())
                if row.text or level == array_depth:  # an empty text before the closing bracket is not a row
                    number += 1
                    yield row
                if level < array_depth:
                    # The text around the rows is parsed as one document, with an empty array in place of the rows.
                    if not self._read_rest(head + text[end:]):
                        yield RawRow(number + 1, b"")
                    return
                start, pending = end + 1, b""
            pending += text[start:]
            _check_length(pending, f"row {number + 1}")
            text = self._read()
        # The document is cut off: yield the rest of its last row, and an empty row, which shows that more followed.
        if pending.strip():
            yield RawRow(number := number + 1, pending.strip())
        yield RawRow(number + 1, b"")

    def has_rows(self) -> bool:
        """Return whether there is such an array; afterwards the file cannot be iterated."""
        try:
            self._find_array()
        except ValueError:
            return False
        return True

    def _find_array(self) -> tuple[bytes, bytes]:
        """Return the text up to and including the array's opening bracket, and the text that was read after it."""
        head = b""
        while text := self._read():
            text = text.removeprefix(BYTE_ORDER_MARK) if not head else text
            offsets, levels = self._marks(text)
            ended = np.flatnonzero(levels <= 0)  # the document ends here: what follows belongs to another one
            offsets, levels = (offsets[: ended[0]], levels[: ended[0]]) if ended.size else (offsets, levels)
            is_first = not head.strip()
            for offset in offsets[(levels <= 2) & (_bytes(text)[offsets] == _BRACKET)].tolist():
                # The key may be in the chunk before. 200 bytes are enough for any of `LIST_KEYS`.
                key = _KEY_BEFORE.search((head[-200:] + text[max(0, offset - 200) : offset])[-200:])
                is_root = is_first and offset == len(text) - len(text.lstrip())
                if is_root or (key and key[1].decode("utf-8", "replace") in LIST_KEYS):
                    # `_marks` has counted to the end of the chunk: go back to the state after the bracket.
                    self._depth, self._in_string = (1 if is_root else 2), False
                    return head + text[:offset] + b"[", text[offset + 1 :] or self._read()
            head += text
            if ended.size:
                break
            _check_length(head, "the text before its rows")
        value = orjson.loads(head)
        raise ValueError(
            f"it is neither a JSON array nor an object with one under {', '.join(LIST_KEYS)}: it is {_kind(value)}"
        )

    def _read_rest(self, around: bytes) -> bool:
        """Read and parse the text around the rows; return whether the document is complete."""
        try:
            around += self._file.read(LARGEST_ROW)
            _check_length(around, "the text around its rows")
            value = orjson.loads(around)
        except orjson.JSONDecodeError as error:
            if "unexpected end of data" in str(error):
                return False
            raise
        self.rest = {key: item for key, item in value.items() if item != []} if isinstance(value, dict) else {}
        return True


def _check_length(text: bytes, what: str) -> None:
    if len(text) > LARGEST_ROW:
        raise ValueError(f"{what} has more than {LARGEST_ROW:,} bytes, or an unbalanced quote")


def _bytes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, dtype=np.uint8)


def _escaped(values: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each offset whether an odd number of backslashes precedes it: a quote there is part of a string."""
    slashes = np.flatnonzero(values == _BACKSLASH)
    run_starts = slashes[np.diff(slashes, prepend=-2) != 1]  # the first backslash of each run
    after_slash = (offsets > 0) & (values[offsets - 1] == _BACKSLASH)
    # The run that ends before an offset is the last one that starts before it; its length is their distance.
    run_start = run_starts[np.searchsorted(run_starts, offsets, side="left") - 1]
    return cast(NDArray[np.bool_], after_slash & ((offsets - run_start) % 2 == 1))


def _kind(value: object) -> str:
    return (
        f"an object with {', '.join(map(repr, list(value)[:10]))}"
        if isinstance(value, dict)
        else f"a {type(value).__name__}"
    )
