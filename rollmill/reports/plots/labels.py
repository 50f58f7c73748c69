"""Labels: short numbers, and text from outside made fit for one line of a plot or a terminal."""

from __future__ import annotations

from rollmill.reports.plots.canvas import plain
from rollmill.terminal.escapes import visible_line


def one_line(text: str) -> str:
    """Return text on one line with control characters as escapes: no escape sequence reaches a terminal."""
    return visible_line(text) or "(no name)"


def label(text: str, longest: int = 60) -> str:
    """Return text from outside as a label that matplotlib can draw."""
    return plain(one_line(text), longest)


def number(value: float | None, missing: str = "-") -> str:
    """Return a short number: whole numbers with thousands separators, others with four significant digits."""
    if value is None:
        return missing
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    if abs(value) < 1e4:
        return f"{value:,.4g}"
    return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4g}"


def share(part: float, total: float, missing: str = "-") -> str:
    """Return a share as per cent; 0% and 100% only for exactly none and all."""
    if not total:
        return missing
    text = f"{part / total:.1%}"
    if text == "0.0%" and part:
        return "<0.1%"
    return ">99.9%" if text == "100.0%" and part != total else text


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 rollout`, `24 rollouts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
