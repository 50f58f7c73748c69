"""The terminal's progress bar."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rollmill.rollouts.progress import Progress

_PLAIN_EVERY_S = 30.0


@contextmanager
def progress_bar(progress: Progress, title: str) -> Iterator[None]:
    """Shows a run's progress on stderr for the time of the block: a bar on a terminal, else a line every 30 s."""
    ended = threading.Event()
    show = _show_bar if sys.stderr.isatty() else _show_lines
    thread = threading.Thread(target=show, args=(progress, title, ended), name="progress-bar", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show_bar(progress: Progress, title: str, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Bar(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task(title, total=progress.total, said="")
        while True:
            last = ended.wait(0.25)
            snapshot = progress.snapshot()
            bar.update(task, completed=snapshot.done, said=snapshot.describe())
            if last:
                return


def _show_lines(progress: Progress, title: str, ended: threading.Event) -> None:
    while not ended.wait(_PLAIN_EVERY_S):
        sys.stderr.write(f"{title}: {progress.snapshot().describe()}\n")
    sys.stderr.write(f"{title}: {progress.snapshot().describe()}\n")
