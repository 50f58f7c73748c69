"""Publishes a run as Prefect artifacts: its progress, and its results as table, text and picture."""

from __future__ import annotations

import base64
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import cast
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from rollmill.generation.outcome import JobOutcome
from rollmill.terminal.escapes import visible, visible_line
from rollmill.terminal.markdown import fenced
from rollmill.terminal.progress_bar import SnapshotSource, progress_bar

_EVERY_S = 5.0


@contextmanager
def track_progress(progress: SnapshotSource, title: str) -> Iterator[None]:
    """Show progress in the terminal and in a progress artifact while the block runs."""
    ended = threading.Event()
    artifact = cast(UUID, create_progress_artifact(_share(progress), description=_described(progress, title)))

    def update() -> None:
        while not ended.wait(_EVERY_S):
            _update(artifact, progress, title)

    # A thread starts with an empty context, and without the flow run's context Prefect would use another server.
    thread = threading.Thread(target=copy_context().run, args=(update,), name="progress-artifact", daemon=True)
    thread.start()
    try:
        with progress_bar(progress, title, console=_log_console()):
            yield
    finally:
        ended.set()
        thread.join()
        _update(artifact, progress, title)
        get_run_logger().info(_described(progress, title))


@contextmanager
def log_to_file(path: str | None) -> Iterator[None]:
    """Append log records to a file, too, while the block runs; None for no file."""
    if path is None:
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(name)s | %(message)s"))
    loggers = [logging.getLogger(), logging.getLogger("prefect")]  # Prefect's do not propagate to the root
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _log_console() -> Console | None:
    """Return the console on which Prefect prints its log lines."""
    handlers = logging.getLogger().handlers
    return next((handler.console for handler in handlers if isinstance(handler, PrefectConsoleHandler)), None)


def _update(artifact: UUID, progress: SnapshotSource, title: str) -> None:
    try:
        update_progress_artifact(artifact, _share(progress), description=_described(progress, title))
    except (PrefectException, HTTPError) as error:  # a busy server must not cost a rollout
        get_run_logger().warning("the progress artifact was not updated: %s", error)


def _share(progress: SnapshotSource) -> float:
    snapshot = progress.snapshot()
    if snapshot.total is None:
        return 0.0
    return 100.0 * snapshot.done / snapshot.total if snapshot.total else 100.0


def _described(progress: SnapshotSource, title: str) -> str:
    return f"{visible_line(title)}: {progress.snapshot().describe()}"


def show_table(key: str, rows: Sequence[Mapping[str, str]], description: str) -> None:
    """Create a table artifact."""
    shown = [{visible_line(title): visible_line(cell) for title, cell in row.items()} for row in rows]
    create_table_artifact(shown, key=key, description=visible_line(description))


def show_text(key: str, text: str, description: str) -> None:
    """Create a markdown artifact with preformatted text."""
    create_markdown_artifact(fenced(visible(text)), key=key, description=visible_line(description))


def show_picture(key: str, path: Path, description: str) -> None:
    """Create an image artifact that embeds the picture: the Prefect server may not see this machine's files."""
    url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    create_image_artifact(url, key=key, description=visible_line(description))


def show_files(key: str, name: str, directory: Path, files: Mapping[str, Path]) -> None:
    """Create a table artifact of the result files: the machine, the directory, and the paths within it.

    Args:
        key: The artifact's.
        name: The job's, for the description.
        directory: The job's.
        files: The paths, by their meaning.
    """
    rows = [{"what": what, "where": os.path.relpath(path, directory)} for what, path in files.items()]
    show_table(key, rows, f"Results of {name}: {directory.absolute()} on {socket.gethostname()}")


def show_outcome(outcome: JobOutcome) -> None:
    """Publish a finished run: its table, `statistics`, picture and files as artifacts, its notes as warnings."""
    keys, name, title = outcome.artifact_keys(), outcome.name, outcome.title
    show_table(keys.table, outcome.table, f"{title}: {name}")
    show_text(keys.statistics, outcome.files["statistics"].read_text(), f"Statistics of {name}")
    show_picture(keys.picture, outcome.picture, f"{title}: {keys.picture.rpartition('-')[2]} of {name}")
    show_files(keys.files, name, outcome.directory, outcome.files)
    for note in [*outcome.notes, *outcome.health[1:]]:
        get_run_logger().warning(note)
