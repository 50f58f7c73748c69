"""A folder of this process's that the next one removes where this one could not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import uuid
from pathlib import Path

import orjson

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import SandboxError

_MARK = "owner.json"


class OwnedFolder:
    """A new folder in `root`, held by a lock that falls with this process. First sweeps what others left there."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # In a folder that all may write to, the name may have been taken by somebody else.
        if root.is_symlink() or root.stat().st_uid != os.geteuid():
            raise InputError(f"{root} is not this user's own folder: remove it, or give another for sandboxes")
        root.chmod(0o711)
        sweep(root)
        making = root / f".{uuid.uuid4().hex}"
        making.mkdir(0o711)
        making.chmod(0o711)
        self._lock = os.open(making / _MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._lock, orjson.dumps({"pid": os.getpid()}))
        self.path = making.rename(root / making.name[1:])

    def close(self) -> None:
        """Removes the folder and all in it."""
        remove_tree(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(root: Path) -> list[Path]:
    """Removes the folders in `root` whose owner is gone; which those were."""
    left = [folder for folder in root.iterdir() if _is_left(folder)]
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
    """Deletes a tree of any depth, number and mode. Raises `SandboxError` where something is left."""
    # rm and chmod walk by open folders: shutil.rmtree ends where a path or the recursion gets too long.
    for command in (["rm"], ["chmod", "-R", "u+rwX"], ["rm"]):
        arguments = [*command, *(["-rf", "--one-file-system"] if command == ["rm"] else []), "--", str(path)]
        done = subprocess.run(arguments, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        if not os.path.lexists(path):
            return
    raise SandboxError(f"{path} cannot be removed", type_="cleanup", details=done.stderr.decode(errors="replace"))
