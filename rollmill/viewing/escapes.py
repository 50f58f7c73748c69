"""Escapes: what a terminal would obey and a reader would not see, written out in text from outside."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TextIO

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline; with them every terminal escape sequence
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction overrides: text that reads other than it stands
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line separators, byte order mark, annotations
    "\ud800-\udfff\U000e0000-\U000e007f]"  # lone surrogates, which no output can encode, and invisible tag letters
)

_UNPRINTABLE = re.compile(r"[^ -~]")


def visible(text: str) -> str:
    r"""The text with hidden and controlling characters written out, such as `\x1b`; `\r\n` becomes a newline.

    Tabs and newlines stay. What comes out holds no character that moves a cursor, changes a terminal or reorders text.
    """
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    r"""The text on one line: white space is single spaces, and whatever does not print is written out, too.

    For names, labels and cells of tables, where also a soft hyphen or a zero-width space would hide something.
    """
    line = " ".join(visible(text).split())
    return line if line.isprintable() else _UNPRINTABLE.sub(_escape_unprintable, line)


def write_lines(stream: TextIO, lines: Iterable[str]) -> None:
    """Write lines for people; what may be text from outside in them neither moves a cursor nor hides anything."""
    stream.writelines(f"{visible(line)}\n" for line in lines)


def _escape_unprintable(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else _escape(match)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0D:
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
