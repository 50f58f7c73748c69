"""A store for results beyond one machine: a shared folder, or an S3 bucket."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, SecretStr

from rollmill.errors import InputError, RollmillError, RunStoppedError
from rollmill.files.atomic import atomic_write, atomic_write_bytes
from rollmill.files.names import MANIFEST
from rollmill.files.remote import is_remote

ATTEMPTS = 5
"""Attempts of botocore, with pauses, for a request that fails with a connection error, 5xx or "slow down"."""
_CONNECT_S = 10
_S3 = ("s3", "s3a")
_ATOMIC = (*_S3, "gs", "gcs", "az", "abfs", "abfss")
"""Object stores, where an upload becomes visible only when it is complete."""
_BLOCK = "in the result-store block"


class StoreConfig(BaseModel):
    """Address and key of a store."""

    model_config = ConfigDict(frozen=True)

    url: str
    endpoint_url: str | None = None
    key: SecretStr | None = None
    secret: SecretStr | None = None


class Stored(NamedTuple):
    """One file in the store."""

    url: str
    bytes: int


class Copied(NamedTuple):
    """A job's results in the store: the folder's URL, and the files."""

    url: str
    files: list[Stored]

    def line(self) -> str:
        """Return a one-line summary for users."""
        size = sum(file.bytes for file in self.files)
        return f"{len(self.files):,} files ({size:,} bytes) copied to {self.url}"


class Store:
    """Writes and reads files below one URL.

    A file appears completely or not at all, with the length of its source. S3 verifies the content by the checksums
    that botocore sends with every part.
    """

    def __init__(self, config: StoreConfig) -> None:
        """Prepare the file system without connecting. Raises `InputError` for an invalid or unsupported URL."""
        self.url = store_url(config.url)
        self._scheme = urlsplit(self.url).scheme
        try:
            self._files, root = url_to_fs(self.url, skip_instance_cache=True, **_options(config, self._scheme))
        except (ImportError, ValueError) as error:
            raise InputError(f"{self.url} cannot be used: {_reason(error)}: correct the url {_BLOCK}") from error
        self._root = root.rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)

    def check(self) -> str:
        """Write, read and delete a small file; return a one-line report.

        Raises `InputError` where the bucket or folder does not exist, or the key is rejected, and `RunStoppedError`
        where the store does not answer.
        """
        if self._local and not Path(self._root).is_dir():  # never create the mount point of a share that is not mounted
            raise InputError(f"{self.url}: there is no such folder: make or mount it, or correct the url {_BLOCK}")
        path, content = f"{self._root}/.check-{uuid.uuid4().hex}", b"written by a check, which deletes it\n"
        with self._checking():
            if self._local:
                atomic_write_bytes(Path(path), content)
            else:
                self._files.pipe_file(path, content)
            returned = self._files.cat_file(path)
            self._files.rm_file(path)
        if returned != content:
            raise RunStoppedError(f"{self.url} returned other bytes than were written: use another store for results")
        return f"{self.url}: a file was written, read and deleted"

    def copy(self, source: Path, name: str) -> Stored:
        """Copy a file. Raises `RunStoppedError` if the copy has another length, otherwise as the file system does."""
        path = f"{self._root}/{name}"
        if self._local:
            with source.open("rb") as file, atomic_write(Path(path)) as copied:
                shutil.copyfileobj(file, copied)
        elif self._scheme in _ATOMIC:
            self._files.put_file(str(source), path)
        else:
            folder, _, last = path.rpartition("/")
            self._files.makedirs(folder, exist_ok=True)
            self._files.put_file(str(source), f"{folder}/.{last}.part")
            self._files.mv(f"{folder}/.{last}.part", path)
        stored, read = int(self._files.info(path)["size"]), source.stat().st_size
        if stored != read:
            raise RunStoppedError(f"{self.url}/{name} has {stored:,} bytes, {source} has {read:,}")
        return Stored(f"{self.url}/{name}", stored)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    @contextmanager
    def _checking(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise InputError(
                f"{self.url} may not be written ({_reason(error)}): correct the key, or the rights there, {_BLOCK}"
            ) from error
        except FileNotFoundError as error:
            raise InputError(
                f"{self.url} does not exist ({_reason(error)}): create the bucket, or correct the url {_BLOCK}"
            ) from error
        except Exception as error:  # each file system has its own exceptions
            raise RunStoppedError(
                f"{self.url} cannot be written ({_reason(error)}): correct the result-store block, or run without it"
            ) from error


def store_url(url: str) -> str:
    """Return an absolute folder or a URL, without a trailing slash. Raises `InputError` for anything else."""
    trimmed = url.strip().rstrip("/")
    shown = url.rpartition("@")[2]  # the part before may be a password
    parts = urlsplit(trimmed)
    if "@" in parts.netloc:
        raise InputError(f"{shown!r}: a key must not be in a url: give it as key and secret {_BLOCK}")
    if not (is_remote(trimmed) if parts.scheme else trimmed.startswith("/")):
        raise InputError(f"{shown!r} is not a store: give an absolute folder or s3://bucket/prefix {_BLOCK}")
    return trimmed


def copy_results(config: StoreConfig, directory: Path, files: Iterable[Path]) -> Copied:
    """Copy a job's files to `<url>/<its directory>/`, the manifest last: a copy with a manifest is complete.

    For a directory that is absolute, or not below the working directory, only its name is used. Raises `InputError`
    where the store has another run there, and `RunStoppedError` where the files cannot be copied.
    """
    store = Store(config)
    below = not directory.is_absolute() and ".." not in directory.parts and directory.parts
    name = directory.as_posix() if below else directory.resolve().name
    url = f"{store.url}/{name}"
    try:
        _check_same_run(store.read(f"{name}/{MANIFEST}"), directory, url)
        chosen = result_files(directory, files)
        return Copied(url, [store.copy(file, f"{name}/{relative}") for relative, file in chosen.items()])
    except InputError:
        raise
    except Exception as error:  # each file system has its own exceptions
        raise RunStoppedError(
            f"the results are in {directory}, but could not be copied to {url} ({_reason(error)}): "
            "run the same command again to copy them"
        ) from error


def result_files(directory: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Return files, and those in folders, by their names in the store; the directory's manifest is the last one.

    `files` may be in the directory or elsewhere. Hidden files are left out, and so are links in folders, which may lead
    anywhere.
    """
    named: dict[str, Path] = {}
    for path in files:
        start = directory if path.is_relative_to(directory) else path.parent
        for file in [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if not entry.is_symlink()):
            relative = file.relative_to(start)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                named[relative.as_posix()] = file
    named.pop(MANIFEST, None)
    if (directory / MANIFEST).is_file():
        named[MANIFEST] = directory / MANIFEST
    return named


def _check_same_run(remote: bytes | None, directory: Path, url: str) -> None:
    local = directory / MANIFEST
    if remote is None or not local.is_file() or _generation_of(remote) == _generation_of(local.read_bytes()):
        return
    raise InputError(
        f"{url} has another run: the results are in {directory} only: give the run another name, or the "
        "result-store block another url, or move the other run away"
    )


def _generation_of(manifest: bytes) -> tuple[Any, Any]:
    """Return a manifest's job and the generation part of its identity; None for both in an invalid one."""
    try:
        content = orjson.loads(manifest)
        return content["job"], content["identity"]["generation"]
    except (ValueError, KeyError, TypeError):
        return None, None


def _options(config: StoreConfig, scheme: str) -> dict[str, Any]:
    """Return the options of fsspec's file system."""
    if scheme not in _S3:
        if config.key or config.secret or config.endpoint_url:
            raise InputError(f"key, secret and endpoint_url are for s3:// urls, not for {config.url!r}: leave them out")
        return {}
    if (config.key is None) != (config.secret is None):
        raise InputError(f"key and secret go together: give both or none {_BLOCK}")
    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    return {
        "key": config.key.get_secret_value() if config.key else None,
        "secret": config.secret.get_secret_value() if config.secret else None,
        "endpoint_url": config.endpoint_url,
        "use_listings_cache": False,
        "config_kwargs": {"retries": retries, "connect_timeout": _CONNECT_S},
    }


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, RollmillError) else " ".join(str(error).split())[:300]
    return text or type(error).__name__
