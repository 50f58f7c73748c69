"""A run directory's manifest: what the run is, and what came of it."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from rollmill.errors import InputError
from rollmill.files.whole import write_json_whole
from rollmill.rollouts.identity import Identity

MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """`manifest.json`."""

    schema_version: Literal[1] = 1
    job: str
    identity_key: str
    identity: Identity
    parameters: dict[str, Any]
    """As given, less secrets."""
    seed: int
    journal: str
    """The journal that counts, relative to the run directory."""
    problems: dict[str, Any]
    """`path`, `sha256`, `count`, `quarantined`."""
    versions: dict[str, str]
    git_commit: str | None
    host: str
    started_at: str
    ended_at: str | None = None
    totals: dict[str, Any] = Field(default_factory=dict)
    devices: list[dict[str, Any]] = Field(default_factory=list)
    """What models in our own processes ran on, each kind once: `device`, `dtype`, `count`, and of GPUs more."""

    def write(self, directory: Path) -> None:
        """Writes it whole."""
        write_json_whole(directory / MANIFEST, self.model_dump(mode="json"))


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a run directory, None where there is no run. Raises `InputError` when it cannot be read."""
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole file"
        raise InputError(
            f"{path} is not a manifest that this version reads ({where}: {error.errors()[0]['msg']}): "
            "move the directory away, or give another --output_dir"
        ) from error


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of what determines results or may explain them."""
    names = ("rollmill", "aiohttp", "prefect", "datasets", "math-verify", "reasoning-gym")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of rollmill's own checkout, where it is one."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def host() -> str:
    """Name of the machine."""
    return socket.gethostname()
