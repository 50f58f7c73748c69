"""Escape control and invisible characters in untrusted text before it is shown in a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TextIO

_EMOJI = "\u00a9\u00ae\u203c\u2049\u2100-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls except tab and newline, and so all terminal escape sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction overrides, which reorder the text that is shown
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line separators, byte order mark, annotations
    "\u034f\u115f\u1160\u3164\uffa0"  # a joiner and letters without a glyph
    "\ufe00-\ufe0e"  # variation selectors, which can encode hidden text after any character
    "\ud800-\udfff\U000e0000-\U000e0fff]"  # lone surrogates, which cannot be encoded; tags and more variation selectors
    f"|(?<![{_EMOJI}])\ufe0f(?!\u20e3)"  # the emoji variation selector, except after an emoji or in a key cap
)
_BLANK_IN_LINE = re.compile("[\u17b4\u17b5\u180b-\u180f\u2800]")
"""Invisible characters of some scripts: legitimate in longer texts, but not recognizable in a name."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_UNPRINTABLE = re.compile(r"[^ -~]")


def visible(text: str) -> str:
    r"""Return the text with control and invisible characters escaped, such as `\x1b`; `\r\n` becomes a newline.

    Tabs and newlines remain. The result cannot move the cursor, change the terminal or reorder text.
    """
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    r"""Return the text on one line, with white space collapsed and every unprintable character escaped.

    For names, labels and cells of tables, where even a soft hyphen or a zero-width space could deceive.
    """
    line = _BLANK_IN_LINE.sub(_escape, " ".join(visible(text).split()))
    return line if line.isprintable() else _UNPRINTABLE.sub(_escape_unprintable, line)


def hidden_sign(text: str) -> str | None:
    """Return the first character of a name that is invisible or looks like another one; None where there is none.

    Zero-width joiners are allowed: some scripts, and emoji, need them.
    """
    signs = [match[0] for pattern in (_HIDDEN, _BLANK_IN_LINE) if (match := pattern.search(text))]
    signs += [sign for sign in text if sign not in " \u200c\u200d" and unicodedata.category(sign) in _UNSEEN]
    return min(signs, key=text.index, default=None)


def write_lines(stream: TextIO, lines: Iterable[str]) -> None:
    """Write lines to a stream, escaped by `visible`, since they may contain untrusted text."""
    stream.writelines(f"{visible(line)}\n" for line in lines)


def _escape_unprintable(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else _escape(match)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0D:
        return "\\r"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
