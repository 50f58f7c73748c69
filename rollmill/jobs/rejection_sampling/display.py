"""Prints the results of a call."""

from __future__ import annotations

from collections.abc import Sequence

from rollmill.jobs.rejection_sampling.outcome import RunOutcome
from rollmill.terminal.escapes import visible, visible_line


def print_outcomes(outcomes: Sequence[RunOutcome]) -> None:
    """Print a table of the runs, their notes and the paths of their files, on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def shown(text: object, style: str = "") -> Text:
        """Return text from outside for rich, which must not interpret markup in it."""
        return Text(visible(str(text)), style)

    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    table = Table()
    rows = [row for outcome in outcomes for row in outcome.table]
    for title in rows[0]:
        table.add_column(title, justify="left" if title == "run" else "right", overflow="fold")
    for row in rows:
        table.add_row(*(shown(visible_line(cell)) for cell in row.values()))
    console.print(table)
    for outcome in outcomes:
        if outcome.made == 0:
            console.print(shown(f"{outcome.name}: already complete, nothing was generated"))
        for note in outcome.notes:
            console.print(shown(f"{outcome.name}: ") + shown(note, "yellow"), soft_wrap=True)
        colour = "yellow" if outcome.health[1:] else ""
        for line in outcome.health:
            console.print(shown(f"{outcome.name}: ") + shown(line, colour), soft_wrap=True)
        for name, path in outcome.files.items():
            console.print(shown(f"  {name:<14} {path}"), soft_wrap=True)
    if len(outcomes) > 1:
        comparison = outcomes[0].directory.parent / "comparison.txt"
        console.print(shown(f"  {'comparison':<14} {comparison}, comparison.png"))
