"""A prepared `python` runs programs as the real one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.prepared_python import prepared_python
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, signal, sys, time
print(sys.argv[1:], os.environ.get("SAID"), os.getcwd(), sys.stdin.read(), "colorsys" in sys.modules, __name__)
print(sys.path[:2], sys.executable, file=sys.stderr)
if "wait" in sys.argv:
    open("pid", "w").write(str(os.getpid()))
    time.sleep(600)
sys.exit(len(sys.argv))
"""
SPAWNS = """
import multiprocessing, os, sys
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(eval, ("'colorsys' in __import__('sys').modules",)))
"""


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    environment = {"PYTHONPATH": str(ROOT)}
    with prepared_python(imported="colorsys", runs=["prog", "spawns"], environment=environment) as python_of_session:
        yield python_of_session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prog.py").write_text(PROGRAM)
    (tmp_path / "spawns.py").write_text(SPAWNS)
    return tmp_path


def test_prepared_python_runs_a_module_like_the_real_one(python: Path, folder: Path) -> None:
    environment = dict(os.environ, SAID="hello", PYTHONPATH="/somewhere")
    results = [
        subprocess.run(
            [program, "-m", "prog", "a", "b c"],
            cwd=folder,
            env=environment,
            input="given",
            capture_output=True,
            text=True,
        )
        for program in (sys.executable, python)
    ]
    real, prepared = (f"{program.returncode} {program.stdout}{program.stderr}" for program in results)
    assert (
        real == f"3 ['a', 'b c'] hello {folder} given False __main__\n{[str(folder), '/somewhere']} {sys.executable}\n"
    )
    assert prepared == real.replace("False", "True").replace(sys.executable, str(python))


def test_what_it_spawns_is_prepared_too(python: Path, folder: Path) -> None:
    assert subprocess.check_output([python, "-u", "-m", "spawns"], cwd=folder) == b"True\n"


def test_what_it_is_not_prepared_for_the_real_one_runs(python: Path) -> None:
    program = "import sys; print('colorsys' in sys.modules)"
    assert subprocess.check_output([python, "-c", program]) == b"False\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_process_that_was_asked_for(python: Path, folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([python, "-m", "prog", "wait"], cwd=folder, stdin=subprocess.DEVNULL)
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    fork = int((folder / "pid").read_text())
    assert fork != process.pid
    process.send_signal(number)
    assert process.wait(60) == -number
    wait_until(lambda: not psutil.pid_exists(fork))
