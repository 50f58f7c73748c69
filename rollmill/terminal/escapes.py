"""Escapes: what a terminal would obey and a reader would not see, written out in text from outside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TextIO

_EMOJI = "\u00a9\u00ae\u203c\u2049\u2100-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline; with them every terminal escape sequence
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction overrides: text that reads other than it stands
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line separators, byte order mark, annotations
    "\u034f\u115f\u1160\u3164\uffa0"  # a joiner and letters that have no shape
    "\ufe00-\ufe0e"  # what chooses among shapes of the sign before, and where there are none may hide a whole text
    "\ud800-\udfff\U000e0000-\U000e0fff]"  # lone surrogates, which no output can encode; tag letters, more such choices
    f"|(?<![{_EMOJI}])\ufe0f(?!\u20e3)"  # that of an emoji or a key cap stays
)
_BLANK_IN_LINE = re.compile("[\u17b4\u17b5\u180b-\u180f\u2800]")
"""Signs of some scripts, which in a text of several lines are one's own affair, and in a name cannot be told."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_UNPRINTABLE = re.compile(r"[^ -~]")


def visible(text: str) -> str:
    r"""Return the text with hidden and controlling characters written out, such as `\x1b`; `\r\n` becomes a newline.

    Tabs and newlines stay. What comes out holds no character that moves a cursor, changes a terminal or reorders text.
    """
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    r"""Return the text on one line: white space is single spaces, and whatever does not print is written out, too.

    For names, labels and cells of tables, where also a soft hyphen or a zero-width space would hide something.
    """
    line = _BLANK_IN_LINE.sub(_escape, " ".join(visible(text).split()))
    return line if line.isprintable() else _UNPRINTABLE.sub(_escape_unprintable, line)


def hidden_sign(text: str) -> str | None:
    """Return the first sign that would not show in a name, or not as what it is; None where there is none.

    Zero-width joiners stay: letters of some scripts, and emoji, need them.
    """
    signs = [match[0] for pattern in (_HIDDEN, _BLANK_IN_LINE) if (match := pattern.search(text))]
    signs += [sign for sign in text if sign not in " \u200c\u200d" and unicodedata.category(sign) in _UNSEEN]
    return min(signs, key=text.index, default=None)


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
