"""A folder of this process that a later process removes if this one could not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.sandboxes.strays import end_strays

_MARK = "owner.json"


class OwnedFolder:
    """A new folder in `root`, locked until this process ends; removes folders of ended processes first."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # In a folder that all users can write to, another user may have created the path first.
        if root.is_symlink() or root.stat().st_uid != os.geteuid():
            raise InputError(f"{root} is not this user's own folder: remove it, or give another for sandboxes")
        root.chmod(0o711)
        with _alone_in(root):  # or another process could sweep the new folder before it is locked
            sweep(root)
            self.path = root / uuid.uuid4().hex
            self.path.mkdir(0o711)
            self.path.chmod(0o711)
            self._lock = os.open(self.path / _MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._lock, orjson.dumps({"pid": os.getpid()}))

    def close(self) -> None:
        """Remove the folder and its content."""
        remove_tree(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Keep other processes from creating or sweeping folders in `root` during the block."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def sweep(root: Path) -> list[Path]:
    """Remove the folders in `root` whose owner has ended, kill what still runs in them, and return them."""
    left = [folder for folder in root.iterdir() if _is_left(folder)]
    if left:
        end_strays([f"{folder.name}/" for folder in left])
    for folder in left:
        remove_tree(folder)
    return left


def _is_left(folder: Path) -> bool:
    try:
        file = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def remove_tree(path: Path) -> None:
    """Delete a tree of any depth, size and mode. Raises `SandboxError` where something is left."""
    # rm and chmod use folder descriptors: shutil.rmtree fails if a path or the recursion gets too long.
    for command in (["rm"], ["chmod", "-R", "u+rwX"], ["rm"]):
        arguments = [*command, *(["-rf", "--one-file-system"] if command == ["rm"] else []), "--", str(path)]
        done = subprocess.run(arguments, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        if not os.path.lexists(path):
            return
    raise SandboxError(f"{path} cannot be removed", type_="cleanup", details=done.stderr.decode(errors="replace"))
