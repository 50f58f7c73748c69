"""A test that failed only because the machine was busy passes when it is repeated alone; a wrong one fails again."""

import subprocess
import sys
from pathlib import Path

from tests.repeat_failed import repeat_failed

FAILS_ONCE = """
def test_is_late_once(tmp_path_factory):
    from pathlib import Path
    late = Path("late")
    if not late.exists():
        late.touch()
        raise AssertionError("late")
"""


def run(root: Path, tests: str) -> None:
    (root / "test_it.py").write_text(tests)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"], cwd=root, capture_output=True)


def test_what_passes_alone_is_named(tmp_path: Path, capfd) -> None:
    run(tmp_path, FAILS_ONCE)
    assert repeat_failed(tmp_path) == 0
    assert (
        "passed alone, failed beside the others (to be made steady): test_it.py::test_is_late_once"
        in capfd.readouterr().out
    )


def test_what_fails_again_has_failed(tmp_path: Path) -> None:
    run(tmp_path, "def test_is_wrong():\n    assert False\n")
    assert repeat_failed(tmp_path) == 1


def test_many_failures_are_not_repeated(tmp_path: Path, capfd) -> None:
    run(tmp_path, FAILS_ONCE + "def test_is_wrong():\n    assert False\n")
    assert repeat_failed(tmp_path, most=1) == 1
    assert "once more" not in capfd.readouterr().out


def test_a_run_that_could_not_start_is_not_repeated(tmp_path: Path) -> None:
    assert repeat_failed(tmp_path) == 1
