"""What a call prints at its end."""

from __future__ import annotations

from collections.abc import Sequence

from rollmill.rejection.outcome import RunOutcome


def print_outcomes(outcomes: Sequence[RunOutcome]) -> None:
    """A table of the runs, what to know about them, and the paths of what was written, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    table = Table()
    rows = [outcome.row() for outcome in outcomes]
    for title in rows[0]:
        table.add_column(title, justify="left" if title == "run" else "right", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    for outcome in outcomes:
        if outcome.made == 0:
            console.print(f"{outcome.name}: already complete, nothing was generated")
        for warning in outcome.warnings:
            console.print(f"{outcome.name}: [yellow]{warning}[/yellow]", soft_wrap=True)
        for what, path in outcome.files.items():
            console.print(f"  {what:<14} {path}", soft_wrap=True)
    if len(outcomes) > 1:
        console.print(f"  {'comparison':<14} {outcomes[0].directory.parent / 'comparison.txt'}, comparison.png")
