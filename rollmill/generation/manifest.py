"""The manifest of a run directory: identity, parameters, environment and totals of the run."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, Field, ValidationError, model_validator

from rollmill.errors import InputError, file_error
from rollmill.files.atomic import atomic_write_json
from rollmill.files.names import MANIFEST
from rollmill.files.regular import require_regular
from rollmill.generation.identity import ROW_KEY_DIGITS, Identity
from rollmill.inference.request_changes import RequestChanges
from rollmill.terminal.escapes import visible_line


class Manifest(BaseModel):
    """`manifest.json`."""

    schema_version: Literal[1] = 1
    job: str
    identity_key: str
    identity: Identity
    parameters: dict[str, Any]
    """The call's parameters, without secrets."""
    seed: int
    journal: str = Field(pattern=r"^rollouts/[0-9]{4,18}\.jsonl$")
    """The journal that counts, relative to the run directory."""
    older_rows: bool = True
    """Whether rows of the journal may lack the run's identity, because an older version began it."""
    problems: dict[str, Any]
    """`path`, `sha256`, `count`, `quarantined`, and `columns`: the input column that was used for each field."""
    versions: dict[str, str]
    git_commit: str | None
    host: str
    started_at: str
    ended_at: str | None = None
    totals: dict[str, Any] = Field(default_factory=dict)
    devices: list[dict[str, Any]] = Field(default_factory=list)
    """Devices of models that run in our own processes, each kind once: `device`, `dtype`, `count`, more for GPUs."""
    request_changes: dict[str, RequestChanges] = Field(default_factory=dict)
    """Request fields that were renamed or left out because the servers refuse them, by model role."""
    slots: int | None = None
    """The best concurrency that was found, summed over workers; None where concurrency was fixed."""
    notes: list[str] = Field(default_factory=list)
    """Notes that were shown at the last start, such as defaults that a server adds to the sampling."""

    @model_validator(mode="after")
    def _check_limit(self) -> Self:
        sampling = self.identity.generation.get("sampling")
        if not isinstance(sampling, dict) or type(sampling.get("max_tokens")) is not int:
            raise ValueError("identity.generation.sampling has no number as max_tokens")
        check_writable(self)
        return self

    def write(self, directory: Path) -> None:
        """Write the manifest atomically."""
        atomic_write_json(directory / MANIFEST, self.model_dump(mode="json"))


def read_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of a run directory; None where there is no run.

    Raises `InputError` when it cannot be read, or `RunStoppedError` where the file system refuses.
    """
    path = directory / MANIFEST
    try:
        require_regular(path)
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error(error, path) or error from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole file"
        raise InputError(
            f"{path} is not a manifest that this version reads ({visible_line(where)}: "
            f"{visible_line(error.errors()[0]['msg'])}): move the directory away, or give another --output_dir"
        ) from error


def check_writable(manifest: BaseModel) -> None:
    """Raise `ValueError` for values that can be read from JSON but not written, such as an integer of 30 digits."""
    try:
        orjson.dumps(manifest.model_dump(mode="json"))
    except TypeError as error:
        raise ValueError(f"cannot be written again: {error}") from error


def check_unaltered(path: Path, identity: Identity, key: str) -> None:
    """Raise `InputError` where a manifest's identity does not have the hash that the manifest records."""
    if identity.key != key:
        raise InputError(
            f"{path} was edited: its identity has the key {identity.row_key}..., and its identity_key is "
            f"{visible_line(key[:ROW_KEY_DIGITS])}...: "
            f"put back the {MANIFEST} as it was, or give another output directory"
        )


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    names = ("rollmill", "aiohttp", "prefect", "datasets", "math-verify", "reasoning-gym")
    versions_by_name = {"python": platform.python_version()}
    for name in names:
        try:
            versions_by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions_by_name


def git_commit() -> str | None:
    """Return the git commit of rollmill's checkout; None where it is not in one."""
    folder = Path(__file__).parent
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return None
    return process.stdout.strip() or None


def host() -> str:
    """Return the name of the machine."""
    return socket.gethostname()
