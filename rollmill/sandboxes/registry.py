"""Registry of the kinds of sandboxes: opens the host that starts them, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rollmill.errors import InputError
from rollmill.registry import Entry, Registry

if TYPE_CHECKING:  # every command line lists the names, and needs none of this
    from pathlib import Path

    from rollmill.inference.http_service import ServiceConfig
    from rollmill.sandboxes.sandbox import SandboxHost


@dataclass(frozen=True)
class SandboxEntry(Entry):
    """A module's declaration of a kind of sandboxes; the target is an `OpenableHost`."""

    remote: bool = field(default=False, kw_only=True)
    """Whether its sandboxes are at a service, whose address it needs; the sandbox service itself cannot use it."""
    from_folders: bool = field(default=False, kw_only=True)
    """Whether its images are folders of `HostSettings.images`, and need no Python of their own."""
    in_containers: bool = field(default=False, kw_only=True)
    """Whether a container command starts them: then the service checks the arguments that clients request for it."""


class HostSettings(NamedTuple):
    """Settings of a job or a service for its sandboxes; each kind takes what it needs."""

    images: Path | None = None
    """The folder with the images, for a kind whose images are folders."""
    packages: Sequence[str] = ("pytest",)
    """Packages of the sandbox's Python, for a kind whose images bring no Python."""
    service: ServiceConfig | None = None
    """Address and token, for a remote kind."""
    start_config: Mapping[str, Any] = {}
    """More of `/start`'s `config`, for a remote kind."""
    engine: str | None = None
    """The address of the container engine; None for the default."""
    executable: str = "docker"
    """The container command."""
    run_args: Sequence[str] = ()
    """More arguments of every container's start."""
    container_timeout_s: float = 7200.0
    """Seconds after which a container ends by itself."""


class OpenableHost(Protocol):
    """Interface of the class of a kind's hosts."""

    @classmethod
    def from_settings(cls, settings: HostSettings) -> SandboxHost:
        """Open a host. Raises `InputError` where it cannot work here."""
        ...


SANDBOXES = Registry("kind of sandboxes", "rollmill.sandboxes", SandboxEntry)
"""All kinds by name; a module adds one by its `ENTRY`, an installed package by an entry point."""


def open_host(kind: str, settings: HostSettings) -> SandboxHost:
    """Open the host of a kind. Raises `InputError` for an unknown kind, or one that cannot work here."""
    host_class: type[OpenableHost] = SANDBOXES.load(kind)
    if not hasattr(host_class, "from_settings"):
        raise InputError(f"{SANDBOXES[kind].path} has no from_settings: a kind of sandboxes is an OpenableHost")
    return host_class.from_settings(settings)
