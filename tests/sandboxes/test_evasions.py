"""Ways around the limits, in C, each made for real: as root, whose sandboxes have users of their own, and as a user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollmill.sandboxes.bubblewrap import BubblewrapHost
from tests.sandboxes.evasions.attempts import EVASIONS, IMAGE, Attempt, attempt

pytestmark = pytest.mark.slow

_SOURCE = Path(__file__).parent / "evasions" / "evade.c"
_USER = 12_345
_ATTEMPTS = 5
_MOST = 4.0
"""Times the limit that the best attempt may take: more than the 1.25 that are wanted, since counting comes too late."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that all users can enter, with the image of the compiled evasions."""
    if not (shutil.which("bwrap") and shutil.which("gcc")):
        pytest.skip("bubblewrap or gcc is not installed (scripts/debian_packages)")
    top = Path(tempfile.mkdtemp(prefix="rollmill-test-"))
    top.chmod(0o711)
    (top / "images" / IMAGE).mkdir(parents=True)
    program = top / "images" / IMAGE / "evade"
    subprocess.run(["gcc", "-O1", "-pthread", "-w", "-o", str(program), str(_SOURCE)], check=True)
    yield top
    subprocess.run(["rm", "-rf", str(top)], check=True)


@pytest.fixture(scope="module")
def as_this_user(folder: Path) -> Iterator[Callable[[str], Attempt]]:
    with BubblewrapHost(folder / "images", root=folder / "root", packages=[]) as host:
        yield lambda name: attempt(host, name)


@pytest.fixture(scope="module")
def as_ordinary_user(folder: Path) -> Iterator[Callable[[str], Attempt]]:
    if os.geteuid() != 0:
        pytest.skip("only root can run as another user")
    (folder / "user").mkdir()
    os.chown(folder / "user", _USER, _USER)
    arguments = [str(folder / "images"), str(folder / "user" / "root"), str(_USER)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sandboxes.evasions.attempts", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    names, attempts = process.stdin, process.stdout
    assert names
    assert attempts

    def run(name: str) -> Attempt:
        names.write(f"{name}\n")
        names.flush()
        return Attempt(**json.loads(attempts.readline()))

    with process:
        yield run
        names.close()


@pytest.mark.parametrize("user", ["as_this_user", "as_ordinary_user"])
@pytest.mark.parametrize("name", EVASIONS)
def test_an_evasion_ends_at_its_limit(request, user, name):
    run, evasion = request.getfixturevalue(user), EVASIONS[name]
    least = sys.maxsize
    for _ in range(_ATTEMPTS):
        done = run(name)
        assert (done.killed_by, done.timed_out) == (evasion.killed_by, False), done
        least = min(least, done.taken)
        if least <= _MOST * evasion.limit:
            return
    pytest.fail(f"{name} took {least / max(evasion.limit, 1):.2f} times its limit")
