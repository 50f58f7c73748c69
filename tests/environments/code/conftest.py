from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from rollmill.environments.code.environment import CodeEnvironment, CodeSettings
from rollmill.environments.python_runs import SandboxedPython, bubblewrap_python
from rollmill.problems import load_problems, read_problems
from rollmill.records import Problem
from rollmill.sandboxes.sandbox import Limits


@pytest.fixture(scope="session")
def python() -> Iterator[SandboxedPython]:
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed (scripts/debian_packages)")
    with bubblewrap_python(limits=Limits(memory_mb=256, processes=48, output_bytes=100_000), timeout_s=10) as runner:
        yield runner


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    """HumanEval."""
    folder = tmp_path_factory.mktemp("human_eval")
    source = CodeEnvironment.source(CodeSettings(), folder)
    loaded = load_problems(
        source, folder / "loaded", problem_fault=lambda each: CodeEnvironment.problem_fault(CodeSettings(), each)
    )
    return list(read_problems(loaded.path))


@pytest.fixture
def problem() -> Problem:
    return make_problem()


def make_problem(**fields: Any) -> Problem:
    """Return a problem in HumanEval's form: the larger of two numbers."""
    prompt = 'def larger(a, b):\n    """The larger of two numbers.\n\n    >>> larger(1, 2)\n    2\n    """\n'
    defaults = {
        "entry_point": "larger",
        "test": "def check(candidate):\n    assert candidate(3, 5) == 5\n    assert candidate(7, 5) == 7\n",
        "canonical_solution": "    if a > b:\n        return a\n    return b\n",
    }
    return Problem(instance_id="larger", prompt=prompt, fields={**defaults, **fields})
