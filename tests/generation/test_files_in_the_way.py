"""Obstacles at the paths of a run's files, and errors of the file system: one line with the path."""

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rollmill.errors import InputError, RollmillError, RunStoppedError
from rollmill.files.names import MANIFEST
from rollmill.generation.lock import LOCK, lock_directory
from tests.generation.run_factory import append, mounted, opened

JOURNAL = "rollouts/0001.jsonl"


def make_run(folder):
    with lock_directory(folder), opened(folder) as run:
        append(run.journal, "p0", 0)
    return folder


def use(folder):
    with lock_directory(folder), opened(folder) as run:
        append(run.journal, "p0", 1)
        run.finish({})


def refusal(folder, kind=InputError):
    with pytest.raises(kind) as caught:
        use(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


SWAPS = {
    "folder": (Path.mkdir, "is a folder, not a file: move it away"),
    "pipe": (os.mkfifo, "is a pipe, not a file: move it away"),
    "link to nothing": (
        lambda path: path.symlink_to("/nowhere/at/all"),
        "is a link to /nowhere/at/all, which does not exist",
    ),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
}


@pytest.mark.parametrize("name", [LOCK, MANIFEST, JOURNAL])
@pytest.mark.parametrize(("swap", "message"), SWAPS.values(), ids=SWAPS)
def test_special_file_in_place_of_a_run_file_is_refused(tmp_path, name, swap, message):
    path = make_run(tmp_path / "run") / name
    path.unlink()
    swap(path)
    assert refusal(tmp_path / "run").startswith(f"{path} {message}")


def test_symlinked_lock_file_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("text")
    (make_run(tmp_path / "run") / LOCK).unlink()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    assert f"{LOCK}; a symbolic link is where a file belongs: remove it" in refusal(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "text"


@pytest.mark.parametrize("name", [".", "rollouts"])
def test_a_file_in_a_folders_place(tmp_path, name):
    path = make_run(tmp_path / "run") / name
    shutil.rmtree(path)
    path.touch()
    message = refusal(tmp_path / "run")
    assert f"{path}; something else is where a folder belongs: move it away" in message


def test_a_file_above_the_directory(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"file/run; a file is where a folder belongs"),
        lock_directory(tmp_path / "file/run"),
    ):
        pass


def test_a_name_that_is_too_long(tmp_path):
    with (
        pytest.raises(InputError, match=r"File name too long: .*choose a shorter name"),
        lock_directory(tmp_path / ("x" * 300)),
    ):
        pass


def test_a_file_system_that_is_read_only(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted("-t", "tmpfs", "tmpfs", folder):
        make_run(folder / "run")
        with mounted("-o", "bind,ro", folder, folder):
            message = refusal(folder / "run", RunStoppedError)
            assert message.startswith(
                f"Read-only file system: {folder}/run/{LOCK}; make it writable, or write elsewhere"
            )
            assert f"{folder}/other" in refusal(folder / "other", RunStoppedError)


@contextmanager
def powerless():
    """This process as a user who owns nothing, where it is root's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", [LOCK, JOURNAL, MANIFEST, "."])
def test_file_without_permission_is_refused(name):
    with TemporaryDirectory() as root:  # pytest's own folders are closed to others
        run = make_run(Path(root) / "run")
        for path in (Path(root), *Path(root).rglob("*")):
            path.chmod(0o777)
        (run / name).chmod(0)
        with powerless():
            message = refusal(run, RollmillError)
        (run / name).chmod(0o777)
    assert f"Permission denied: {run}" in message
    assert "allow this user to read and write there" in message


def test_no_room_for_the_lock(small_disk):
    (small_disk / "run").mkdir()
    state = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(state.f_bavail * state.f_bsize))
    message = refusal(small_disk / "run", RunStoppedError)
    assert message.startswith(
        f"No space left on device: {small_disk}/run/{LOCK}; free some space, then run the same command"
    )


def test_no_descriptors_left(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(RunStoppedError, match=r"Too many open files: .*ulimit -n"), lock_directory(tmp_path):
        pass
