"""A progress bar for the terminal, for any object with a `snapshot()` method."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

_LINE_INTERVAL_S = 30.0


class Snapshot(Protocol):
    """Progress at one moment."""

    @property
    def done(self) -> int:
        """Return how many of `total` are done."""

    @property
    def total(self) -> int | None:
        """Return the total; None while it is not known."""

    def describe(self) -> str:
        """Return the details in one line."""


class SnapshotSource(Protocol):
    """A source of snapshots; thread-safe."""

    def snapshot(self) -> Snapshot:
        """Return the current progress."""


@contextmanager
def progress_bar(progress: SnapshotSource, title: str, *, console: Console | None = None) -> Iterator[None]:
    """Show progress on stderr during the block: a bar on a terminal, otherwise a line every 30 s and at the end.

    `console` is the one that log lines are printed to, so that they appear above the bar.
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


def _show_bar(progress: SnapshotSource, title: str, ended: threading.Event, console: Console | None) -> None:
    """Draw a progress bar until the event is set.

    Args:
        progress: Source of snapshots.
        title: Text before the bar.
        ended: Set when the work has ended.
        console: Console that log lines are printed to; None for a new one.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    # Plain colours: a console that was created for log lines may not know the names of rich's styles.
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


def _show_lines(progress: SnapshotSource, title: str, ended: threading.Event) -> None:
    while not ended.wait(_LINE_INTERVAL_S):
        sys.stderr.write(f"{title}: {progress.snapshot().describe()}\n")
    sys.stderr.write(f"{title}: {progress.snapshot().describe()}\n")
