import errno
import fcntl
import os
import stat
import subprocess
import sys

import orjson
import pytest

from rollmill.errors import InputError, RunStoppedError
from rollmill.generation import lock as lock_module
from rollmill.generation.lock import LOCK, lock_directory
from rollmill.generation.manifest import host
from tests.generation.run_factory import append, mounted, open_journal

LOCK_PROGRAM = """
import sys
from pathlib import Path
from rollmill.generation.lock import lock_directory

with lock_directory(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def lock(directory):
    with lock_directory(directory):
        pass


def holder(directory, program=LOCK_PROGRAM):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program, directory]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment)
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused_with_pid_and_host(tmp_path):
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


NO_NOTES = [b"", b"garbage", b"[]", b"{}", b"7"]


@pytest.mark.parametrize("content", NO_NOTES)
def test_lock_with_unreadable_content_still_names_its_holder(tmp_path, content):
    with holder(tmp_path) as process:
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(InputError, match=f"in use by process {process.pid} on {host()}: wait"):
            lock(tmp_path)
        process.communicate("\n")


@pytest.mark.parametrize("content", NO_NOTES)
def test_unknown_holder_is_another_process(tmp_path, content, monkeypatch):
    monkeypatch.setattr(lock_module, "_LOCKS", tmp_path / "no such file")
    with lock_directory(tmp_path):
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(InputError, match="in use by another process"):
            lock(tmp_path)


def test_it_is_freed_when_the_block_raises(tmp_path):
    with pytest.raises(KeyError), lock_directory(tmp_path):
        raise KeyError
    lock(tmp_path)


def test_a_directory_whose_lock_file_is_gone(tmp_path):
    with holder(tmp_path) as process:
        (tmp_path / LOCK).unlink()
        for _ in range(2):
            with pytest.raises(InputError, match=f"{tmp_path} is in use by process {process.pid} on {host()}: wait"):
                lock(tmp_path)
        assert not (tmp_path / LOCK).exists()
        process.kill()
        process.wait()
        lock(tmp_path)


def test_a_directory_under_other_names(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with holder(tmp_path / "run") as process:
        (tmp_path / "run" / LOCK).unlink()
        (tmp_path / "run").rename(tmp_path / "renamed")
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "renamed")
        for name in ("renamed", "link", "link/../renamed"):
            with pytest.raises(InputError, match=f"in use by process {process.pid} on"):
                lock(tmp_path / name)
        process.communicate("\n")


def test_a_directory_that_is_mounted_at_another_place(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mounted").mkdir()
    with mounted("--bind", tmp_path / "run", tmp_path / "mounted"), holder(tmp_path / "run") as process:
        (tmp_path / "run" / LOCK).unlink()
        with pytest.raises(InputError, match=f"mounted is in use by process {process.pid} on"):
            lock(tmp_path / "mounted")
        process.communicate("\n")


def test_an_older_version_is_refused_and_refuses(tmp_path):
    with lock_directory(tmp_path), (tmp_path / LOCK).open("r+b") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / LOCK).open("r+b") as file:  # which locks this file alone
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(orjson.dumps({"pid": os.getpid(), "host": "h", "since": "s"}))
        file.truncate()
        file.flush()
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on h since s"):
            lock(tmp_path)
    lock(tmp_path)


def test_a_file_system_that_cannot_lock_folders(tmp_path, monkeypatch):
    flock = fcntl.flock

    def as_on_nfs(file, how):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    with lock_directory(tmp_path), pytest.raises(InputError, match="in use by process"):
        lock(tmp_path)


JOURNAL = """
import sys
from pathlib import Path
from tests.generation.run_factory import append, open_journal

with open_journal(Path(sys.argv[1])) as journal:
    append(journal)
    print("held", flush=True)
    input()
"""


@pytest.mark.parametrize("way", ["hard link", "link", "linked folder", "no lock file"])
def test_one_journal_of_two_directories(tmp_path, way):
    original, link = tmp_path / "here", tmp_path / "there"
    path = original / "rollouts" / "0001.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    if way == "linked folder":
        link.mkdir()
        (link / "rollouts").symlink_to(path.parent)
    else:
        (link / "rollouts").mkdir(parents=True)
        other = link / "rollouts" / "0001.jsonl"
        other.hardlink_to(path) if way == "hard link" else other.symlink_to(path)
    path_in_message = path if way == "no lock file" else link / "rollouts" / "0001.jsonl"
    with holder(path, JOURNAL) as process:
        with pytest.raises(InputError, match=f"{path_in_message} is in use by process {process.pid} on {host()}"):
            open_journal(path_in_message)
        process.kill()
        process.wait()
    with open_journal(path_in_message) as journal:
        assert journal.tally.done == 1


def moved(path):
    path.rename(path.with_name("elsewhere"))


def replaced(path):
    moved(path)
    path.touch()


MOVES = {
    "deleted": lambda path: path.unlink(),
    "moved": moved,
    "replaced": replaced,
    "its folder moved": lambda path: moved(path.parent),
    "its run moved": lambda path: moved(path.parent.parent),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_renamed_journal_stops_the_run(tmp_path, move):
    path = tmp_path / "run" / "rollouts" / "0001.jsonl"
    journal = open_journal(path)
    append(journal)
    journal.sync()
    append(journal, "p", 1)
    move(path)
    with pytest.raises(RunStoppedError, match=f"{path} was moved, replaced or deleted"):
        journal.sync()
    journal.close()
