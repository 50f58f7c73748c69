"""The terminal's progress bar, of anything that is watched."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_EVERY_S = 30.0


class Snapshot(Protocol):
    """Something at one moment."""

    @property
    def done(self) -> int:
        """How many of `total`."""

    @property
    def total(self) -> int | None:
        """None while nobody knows."""

    def describe(self) -> str:
        """Return the moment in one line."""


class Watched(Protocol):
    """What can be watched, from any thread."""

    def snapshot(self) -> Snapshot:
        """Return the state as it is now."""


@contextmanager
def progress_bar(progress: Watched, title: str, *, console: Console | None = None) -> Iterator[None]:
    """Show progress on stderr for the time of the block: a bar on a terminal, else a line every 30 s.

    `console` is the one that log lines are printed to, so that they appear above the bar and not in it.
    """
    ended = threading.Event()
    arguments: tuple[Any, ...] = (progress, title, ended)
    if sys.stderr.isatty():
        thread = threading.Thread(target=_show_bar, args=(*arguments, console), name="progress-bar", daemon=True)
    else:
        thread = threading.Thread(target=_show_lines, args=arguments, name="progress-lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show_bar(progress: Watched, title: str, ended: threading.Event, console: Console | None) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    # Styles by their colours: a console that is made for log lines need not know rich's own names.
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(style="grey50", complete_style="cyan", finished_style="green", pulse_style="cyan"),
        TextColumn("{task.fields[details]}", markup=False),
    )
    with Bar(*columns, console=console or Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task(title, total=None, details="")
        while True:
            last = ended.wait(0.25)
            snapshot = progress.snapshot()
            bar.update(task, total=snapshot.total, completed=snapshot.done, details=snapshot.describe())
            if last:
                return


def _show_lines(progress: Watched, title: str, ended: threading.Event) -> None:
    while not ended.wait(_PLAIN_EVERY_S):
        sys.stderr.write(f"{title}: {progress.snapshot().describe()}\n")
    sys.stderr.write(f"{title}: {progress.snapshot().describe()}\n")
