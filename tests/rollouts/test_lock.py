import os
import subprocess
import sys

import pytest

from rollmill.errors import InputError
from rollmill.rollouts.lock import LOCK, lock_directory
from rollmill.rollouts.manifest import host

HOLD = """
import sys
from pathlib import Path
from rollmill.rollouts.lock import lock_directory

with lock_directory(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def lock(directory):
    with lock_directory(directory):
        pass


def holder(directory):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", HOLD, directory]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_firsts_number_and_host(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(InputError, match=f"{tmp_path} is in use by process {process.pid} on {host()} since 20"):
            lock(tmp_path)
        process.communicate("\n")
    lock(tmp_path)


def test_kill_9_frees_the_directory(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        lock(tmp_path)


def test_the_same_process_twice(tmp_path):
    with lock_directory(tmp_path / "new" / "run"):
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} "):
            lock(tmp_path / "new" / "run")
        lock(tmp_path / "new" / "other")


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b"{}", b"7"])
def test_a_holder_that_has_not_said_who_it_is(tmp_path, content):
    with lock_directory(tmp_path):
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(InputError, match="in use by another process"):
            lock(tmp_path)


def test_it_is_freed_when_the_block_raises(tmp_path):
    with pytest.raises(KeyError), lock_directory(tmp_path):
        raise KeyError
    lock(tmp_path)
