"""Untrusted text in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from rollmill.terminal.escapes import visible_line

_MARKS = re.compile(r"[\\`*_\[\]|#~$]")


def plain_markdown(value: object) -> str:
    """Return untrusted text on one line, escaped so that it contains no Markdown or HTML markup.

    Control and invisible characters are escaped, too. A bare URL remains: a page that turns it into a link shows its
    target.
    """
    return _MARKS.sub(r"\\\g<0>", html.escape(visible_line(str(value)), quote=False))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; the cells are untrusted text."""
    lines = [head, ["---"] * len(head), *([plain_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def markdown_code(value: object) -> str:
    """Return untrusted text as inline code, with a fence longer than any run of backticks in it."""
    text = visible_line(str(value))
    if not text:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def fenced(text: str) -> str:
    """Return preformatted text as a code block, with a fence longer than any run of backticks in it."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}\n{text}\n{fence}"
