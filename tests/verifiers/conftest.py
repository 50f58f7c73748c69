from pathlib import Path

import pytest

from rollmill.records import Problem


@pytest.fixture
def custom(monkeypatch):
    """Put the folder of custom verifiers into `sys.path`, in the position of the current directory."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "custom")


@pytest.fixture
def make_problem():
    def make(answer: str | None = "7", **fields) -> Problem:
        return Problem(instance_id="p-1", prompt="how much?", answer=answer, fields=fields)

    return make
