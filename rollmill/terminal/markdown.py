"""Text from outside in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from rollmill.terminal.escapes import visible_line

_MARKS = re.compile(r"[\\`*_\[\]|#~$]")


def plain_markdown(value: object) -> str:
    """Return text from outside, on one line, that neither Markdown nor HTML takes for its own.

    Hidden and control characters are written out, as the viewer does. A bare address stays as it is: a page that makes
    a link of it shows where that leads.
    """
    return _MARKS.sub(r"\\\g<0>", html.escape(visible_line(str(value)), quote=False))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; the cells are text from outside."""
    lines = [head, ["---"] * len(head), *([plain_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def markdown_code(value: object) -> str:
    """Return text from outside as code within a line, whatever backticks it has."""
    text = visible_line(str(value))
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}" if text else ""


def fenced(text: str) -> str:
    """Return preformatted text as a block that nothing in it ends."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}\n{text}\n{fence}"
