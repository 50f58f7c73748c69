"""Labels: text from outside, fit for one line of a picture or a terminal; numbers, short."""

from __future__ import annotations

from rollmill.reports.plots.canvas import plain
from rollmill.terminal.escapes import visible_line


def one_line(text: str) -> str:
    """Return the text on one line, hidden and control characters written out: no escape sequence reaches a terminal."""
    return visible_line(text) or "(no name)"


def label(text: str, longest: int = 60) -> str:
    """Return text from outside as matplotlib shall write it."""
    return plain(one_line(text), longest)


def number(value: float | None, missing: str = "-") -> str:
    """Return a number in few signs: whole ones with thousands separated, others with four significant digits."""
    if value is None:
        return missing
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4g}"


def share(part: float, whole: float, missing: str = "-") -> str:
    """Return a share as per cent; never 0% or 100% of what is only nearly so."""
    if not whole:
        return missing
    text = f"{part / whole:.1%}"
    if text == "0.0%" and part:
        return "<0.1%"
    return ">99.9%" if text == "100.0%" and part != whole else text


def counted(count: int, noun: str) -> str:
    """`1 rollout`, `24 rollouts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
