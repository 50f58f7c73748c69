"""The secret key for the slots that a sandbox service reserves for grading.

On one machine a user's services and graders share it in a file that only the user can read; across machines, in an
environment variable on both sides.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import urlsplit

from pydantic import SecretStr

from rollmill.errors import InputError

KEY_VARIABLE = "ROLLMILL_GRADING_KEY"
"""The environment variable that holds the key, at the sandbox service and at those who grade."""
KEY_HEADER = "X-Rollmill-Grading-Key"
_LONGEST = 1024


def service_keys() -> list[SecretStr]:
    """Return the keys that a service accepts: the environment's, and this user's on this machine, created if missing.

    Raises `InputError` where the file's folder belongs to another user.
    """
    environment_key = os.environ.get(KEY_VARIABLE, "").strip()
    shared = _read_key() or _make_key()
    return [*([SecretStr(environment_key)] if environment_key else []), shared]


def key_for(url: str) -> SecretStr | None:
    """Return the key to send to the service at a URL; None if there is none for it."""
    environment_key = os.environ.get(KEY_VARIABLE, "").strip()
    if environment_key:
        return SecretStr(environment_key)
    host = urlsplit(url).hostname or ""
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    return _read_key() if is_local else None


def _folder() -> Path:
    return Path(gettempdir()) / f"rollmill-services-{os.geteuid()}"


def _read_key() -> SecretStr | None:
    """Return the key in the file; None if there is none, or other users could have read or written it."""
    try:
        folder = os.open(_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not _is_private(os.fstat(folder)):
            return None
        file = os.open("grading.key", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        key = opened.read(_LONGEST).strip() if stat.S_ISREG(status.st_mode) and _is_private(status) else b""
    return SecretStr(key.decode("ascii", errors="replace")) if key else None


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def _make_key() -> SecretStr:
    folder = _folder()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or not folder.is_dir() or not _is_private(folder.stat()):
        raise InputError(f"{folder} is not this user's own folder, closed to others: remove it")
    part = folder / f"{secrets.token_hex(8)}.part"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as opened:
        opened.write(secrets.token_hex(32))
    try:
        os.link(part, folder / "grading.key")
    except FileExistsError:
        if _read_key() is None:  # empty, or open to others: replace it
            part.replace(folder / "grading.key")
    finally:
        part.unlink(missing_ok=True)
    key = _read_key()
    if key is None:
        raise InputError(f"{folder / 'grading.key'} cannot be read: remove it")
    return key
