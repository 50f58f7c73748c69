"""Copying results to a store, and saying where they are."""

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
    """What a job left."""

    @property
    def directory(self) -> Path:
        """Return the job's own directory."""
        ...

    @property
    def files(self) -> Mapping[str, Path]:
        """Return the files and folders, by what they are."""
        ...


OutcomeT = TypeVar("OutcomeT", bound=JobResult)

_ONE_AT_A_TIME = threading.Lock()
"""Two outcomes of one run, a training's and its evaluation's, both have its manifest."""


@task(name="check store", cache_policy=NO_CACHE)
@report_failure
def check_store(block: str) -> None:
    """Refuse a store that cannot be written, before anything is made for it."""
    get_run_logger().info(Store(result_store(block)).check())


@task(name="store results", cache_policy=NO_CACHE)
@report_failure
def store_results(block: str, directory: Path, files: Sequence[Path]) -> None:
    """Copy a job's results, and show where they are."""
    with _ONE_AT_A_TIME:
        copied = copy_results(result_store(block), directory, files)
    rows = [{"file": file.url, "bytes": f"{file.bytes:,}"} for file in copied.files]
    show_table("results-stored", rows, f"Copied to {copied.url}")
    get_run_logger().info(copied.line())


class ResultUploader:
    """Hands outcomes on, and has them copied meanwhile."""

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
def storing(block: str | None) -> Iterator[ResultUploader]:
    """Yield what copies outcomes to the store of a block; None for no store.

    The store is tried first: raises `InputError` or `RunStoppedError` where it cannot be written, and at the end
    where something was not copied.
    """
    if block is not None:
        result_of(check_store.submit(block))
    copies = ResultUploader(block)
    yield copies
    copies.wait()
