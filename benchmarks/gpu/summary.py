"""Tables of the measurements in a file, in Markdown, for `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.ledger import REASON, Figures, key_of, read_lines
from rollmill.terminal.markdown import markdown_table

PASS, GENERATE, SAMPLING = "pass of one token", "generate, one model", "q*"


def last_lines(path: Path) -> list[Figures]:
    """Return the last line of each measurement."""
    return list({key_of(line): line for line in read_lines(path)}.values())


def tables(path: Path) -> Iterator[str]:
    """Yield a table of q* over its bounds, then one table for each measurement, then what was not measured."""
    lines = last_lines(path)
    measured = [line for line in lines if REASON not in line]
    if rows := bounds(measured):
        yield "q* over its bounds\n\n" + markdown_table(
            ("size", "pair", "rows", "tokens/s", "of two `generate`", "of two passes", "of two graphs"), rows
        )
    for name in dict.fromkeys(line["measurement"] for line in measured):
        yield f"{name}\n\n{_table([line for line in measured if line['measurement'] == name])}"
    if missing := [(line["measurement"], line[REASON]) for line in lines if REASON in line]:
        yield "Not measured\n\n" + markdown_table(("measurement", "reason"), missing)


def bounds(measured: Sequence[Figures]) -> list[tuple[str, ...]]:
    """Return for each measurement of q* its share of what two models reach that wait for nothing else.

    The bounds: the rate of two `generate` one after the other, and of two passes of one token each, as they are and as
    CUDA graphs. A hint's pair has one set of weights, and twice the rows in one pass.
    """
    figures = {(line["measurement"], line["settings"]["size"], line["settings"].get("rows")): line for line in measured}
    rows = []
    for line in measured:
        if line["measurement"] != SAMPLING:
            continue
        size, count, pair = (line["settings"][name] for name in ("size", "rows", "pair"))
        rate = line["tokens_per_s"]
        generated = figures.get((GENERATE, size, count))
        one_pass = figures.get((PASS, size, count))
        shares = [
            rate / (generated["tokens_per_s"] / 2) if generated else None,
            rate * 2 * one_pass["ms"] / 1e3 / count if one_pass else None,
            rate * 2 * one_pass["graph_ms"] / 1e3 / count if one_pass and "graph_ms" in one_pass else None,
        ]
        cells = ["" if share is None else f"{share:.2f}" for share in shares]
        rows.append((size, pair, str(count), f"{rate:,.1f}", *cells))
    return rows


def _table(lines: Sequence[Figures]) -> str:
    hidden = ("measurement", "settings", "group", "took_s")
    rows = [line["settings"] | {name: line[name] for name in line if name not in hidden} for line in lines]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return markdown_table(names, [tuple(str(row.get(name, "")) for name in names) for row in rows])
