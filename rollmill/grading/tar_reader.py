"""Reads tar archives from untrusted writers: strictly, in one pass, in time and memory of at most the archive's length.

`tarfile` follows what headers claim: it joins chained headers by recursion, and reads sparse maps as long as they say
they are. Here ustar, pax and GNU tar's own format are read as GNU tar writes them; everything else is refused. Formats:
https://www.gnu.org/software/tar/manual/html_node/Standard.html, POSIX.1-2017, `pax`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
REGULAR_TYPES = (b"0", b"\0", b"7")
HARD_LINK, LINK_TYPE, FOLDER = b"1", b"2", b"5"
DEVICES = (b"3", b"4", b"6")
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_GLOBAL = b"x", b"g"
_MOST_EXTENSIONS = 4
"""Headers in a row that extend the next member's: GNU tar writes two, pax one or two."""


class DamagedTarError(Exception):
    """The archive is none, is cut off, or holds what is not read here."""


class Member(NamedTuple):
    """One member of an archive."""

    type: bytes
    name: bytes
    target: bytes
    """Of a hard or symbolic link."""
    mode: int
    content: memoryview
    """Of a file; empty for others."""


def read_members(archive: bytes, longest_name: int) -> Iterator[Member]:
    """Yield the members of an archive. Raises `DamagedTarError`.

    Args:
        archive: A whole tar, not compressed.
        longest_name: Maximum bytes of a path, a link's target, and of a member's extended attributes together.
    """
    view, at = memoryview(archive), 0
    extended: dict[bytes, bytes] = {}
    extensions = 0
    while True:
        header = archive[at : at + BLOCK]
        if len(header) < BLOCK:
            raise DamagedTarError("it is cut off")
        if not any(header):
            return
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if b"size" in extended and kind not in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            size = _decimal(extended[b"size"])
        begin = at + BLOCK
        has_content = kind in (*REGULAR_TYPES, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL)
        end = begin + size if has_content else begin
        if end > len(archive):
            raise DamagedTarError("a member is cut off")
        at = begin + (end - begin + BLOCK - 1) // BLOCK * BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            extensions += 1
            if extensions > _MOST_EXTENSIONS or size > 2 * longest_name + BLOCK:
                raise DamagedTarError("a member has too long a name or too many attributes")
            extended |= _extension(kind, bytes(view[begin:end]))
            continue
        yield _member(header, kind, extended, view[begin:end])
        extended, extensions = {}, 0


def _member(header: bytes, kind: bytes, extended: dict[bytes, bytes], content: memoryview) -> Member:
    """Return a member from its header.

    Args:
        header: Its block.
        kind: Its type.
        extended: What extensions before it say instead of the header.
        content: What follows it.
    """
    if kind not in (*REGULAR_TYPES, *DEVICES, HARD_LINK, LINK_TYPE, FOLDER):
        raise DamagedTarError(f"it holds a member of type {kind.decode('latin-1')!a}")
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        name = _text(header[345:500]) + b"/" + name
    name = extended.get(b"path", name)
    if kind == b"\0" and name.endswith(b"/"):  # a folder, as archives before POSIX mark it
        kind = FOLDER
    return Member(kind, name, extended.get(b"linkpath", _text(header[157:257])), _number(header[100:108]), content)


def _extension(kind: bytes, content: bytes) -> dict[bytes, bytes]:
    """Return what a header of GNU tar or pax says about the next member."""
    if kind == _LONG_NAME:
        return {b"path": _text(content)}
    if kind == _LONG_LINK:
        return {b"linkpath": _text(content)}
    attributes = {}
    at = 0
    while at < len(content):  # each is "LENGTH KEY=VALUE\n", its length that of the whole
        digits = content[at : at + 8].partition(b" ")[0]
        length = _decimal(digits)
        if length <= len(digits):
            raise DamagedTarError("the attributes of a member are damaged")
        record = content[at : at + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise DamagedTarError("the attributes of a member are damaged")
        if key.startswith(b"GNU.sparse"):
            raise DamagedTarError("it holds a sparse member")
        attributes[key] = value[:-1]
        at += length
    # A global header would hold for all members; GNU tar and git write only comments there.
    return {} if kind == _PAX_GLOBAL else attributes


def _check_sum(header: bytes) -> None:
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise DamagedTarError("a header's checksum is wrong")


def _number(field: bytes) -> int:
    """Return a header's number: octal digits, or base 256 from GNU tar, where a first byte of 0xff means negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit() or not set(digits) <= set(b"01234567"):
        raise DamagedTarError("a header's number is damaged")
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 15:
        raise DamagedTarError("the attributes of a member are damaged")
    return int(digits)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
