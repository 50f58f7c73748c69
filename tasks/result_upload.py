"""Copies results to a store, and publishes their addresses."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from blocks.storage import result_store
from rollmill.files.store import Store, copy_results
from tasks.artifacts import show_table
from tasks.errors import report_failure
from tasks.interruption import result_of


class JobResult(Protocol):
    """A finished job's directory and files."""

    @property
    def directory(self) -> Path:
        """Return the job's own directory."""
        ...

    @property
    def files(self) -> Mapping[str, Path]:
        """Return the files and folders, by their meaning."""
        ...


OutcomeT = TypeVar("OutcomeT", bound=JobResult)

_ONE_AT_A_TIME = threading.Lock()
"""Serializes copies: a training's outcome and its evaluation's both contain the run's manifest."""


@task(name="check store", cache_policy=NO_CACHE)
@report_failure
def check_store(block: str) -> None:
    """Check that a store can be written, before a run generates anything for it."""
    get_run_logger().info(Store(result_store(block)).check())


@task(name="store results", cache_policy=NO_CACHE)
@report_failure
def store_results(block: str, directory: Path, files: Sequence[Path]) -> None:
    """Copy a job's results, and publish their addresses."""
    with _ONE_AT_A_TIME:
        copied = copy_results(result_store(block), directory, files)
    rows = [{"file": file.url, "bytes": f"{file.bytes:,}"} for file in copied.files]
    show_table("results-stored", rows, f"Copied to {copied.url}")
    get_run_logger().info(copied.line())


class ResultUploader:
    """Copies outcomes to a store in the background."""

    def __init__(self, block: str | None) -> None:
        self._block = block
        self._copies: list[PrefectFuture[None]] = []

    def __call__(self, outcome: OutcomeT) -> OutcomeT:
        """Start copying an outcome's files, and return the outcome."""
        if self._block is not None:
            self._copies.append(store_results.submit(self._block, outcome.directory, list(outcome.files.values())))
        return outcome

    def wait(self) -> None:
        """Wait until all is copied. Raises the error of the first copy that failed."""
        for copy in self._copies:
            result_of(copy)


@contextmanager
def open_uploader(block: str | None) -> Iterator[ResultUploader]:
    """Yield an uploader of outcomes to the store of a block; None for no store.

    Raises `InputError` or `RunStoppedError` at the beginning if the store cannot be written, and at the end if a copy
    failed.
    """
    if block is not None:
        result_of(check_store.submit(block))
    copies = ResultUploader(block)
    yield copies
    copies.wait()
