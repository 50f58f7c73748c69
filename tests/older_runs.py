"""Run directories of version 0.1, in the folder `written_by_1` next to the tests that continue them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import orjson
import pytest
from pydantic import BaseModel

from rollmill.config.parameter import canonical_names
from rollmill.generation.finished import report_complete
from rollmill.generation.job import opened_run
from rollmill.generation.run import Run

P = TypeVar("P", bound=BaseModel)


def enter_copy(test: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a copy of the `written_by_1` beside a test the working directory, as its paths are relative; return it."""
    folder = tmp_path / "old"
    shutil.copytree(Path(test).parent / "written_by_1", folder)
    monkeypatch.chdir(folder)
    return folder


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a run as it is on disk."""
    return orjson.loads((directory / "manifest.json").read_bytes())


@dataclass(frozen=True)
class OlderRun(Generic[P]):
    """A run with a manifest and a journal, the model of its parameters, and what makes a call's only job of these."""

    directory: Path
    model: type[P]
    jobs: Callable[[P], list[Any]]

    def parameters(self, **changed: Any) -> P:
        """Return the parameters that the run was started with, some of them changed."""
        earlier = canonical_names(self.model, read_manifest(self.directory)["parameters"])
        return self.model.model_validate(earlier | canonical_names(self.model, changed))

    def journal(self) -> bytes:
        """Return the journal's bytes."""
        return (self.directory / "rollouts/0001.jsonl").read_bytes()

    def open(self, **changed: Any) -> AbstractContextManager[Run]:
        """Open the run with its parameters, some of them changed."""
        [job] = self.jobs(self.parameters(**changed))
        return opened_run(job)

    def report(self) -> Any:
        """Write the run's results again, and return its outcome."""
        [outcome] = report_complete(self.jobs(self.parameters())) or [None]
        return outcome

    def check_continues(
        self, *, expected: int, more: dict[str, Any], missing: int, same: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Check that its own parameters find the run complete, and that it takes more rollouts.

        Args:
            expected: How many rollouts the run has.
            more: Parameters that ask for more rollouts.
            missing: How many more these are.
            same: Parameters of today that mean what the run did.
        """
        journal, key = self.journal(), read_manifest(self.directory)["identity_key"]
        with self.open(**same) as run:
            assert (run.missing(), run.expected) == (0, expected)
            assert run.manifest.identity_key == key
        with self.open(**same, **more) as run:
            assert run.missing() == missing
        assert self.journal() == journal
