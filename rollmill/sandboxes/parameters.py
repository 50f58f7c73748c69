"""Command-line parameters that select a job's sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from rollmill.config.parameter import Parameters, parameter
from rollmill.sandboxes.registry import SANDBOXES

if TYPE_CHECKING:
    SandboxKind = str
    LocalSandboxKind = str
else:  # command line, form and documentation take the choices from the type
    SandboxKind = Literal[tuple(SANDBOXES)]
    """The name of a kind of sandboxes."""
    LocalSandboxKind = Literal[tuple(name for name, kind in SANDBOXES.items() if not kind.remote)]
    """The name of a kind that needs no service."""


class SandboxParameters(Parameters):
    """The kind of sandboxes: on this machine, or at a service."""

    sandbox: SandboxKind | None = parameter(
        None,
        "Sandboxes",
        "Sandboxes",
        f"Where agents' commands and code run: {SANDBOXES.described}; remote with --sandbox_server, else bubblewrap.",
    )
    sandbox_server: str | None = parameter(
        None, "Sandboxes", "Sandbox server", "host:port of a sandbox service (/start, /execute, /cleanup).",
        metavar="HOST:PORT", aliases=("docker_server",),
    )  # fmt: skip
    sandbox_block: str | None = parameter(
        None, "Sandboxes", "Sandbox block", "Name of a sandbox-service block: its address and token.", metavar="BLOCK"
    )

    @model_validator(mode="after")
    def _at_most_one_service(self) -> Self:
        if self.sandbox_server and self.sandbox_block:
            raise ValueError("give --sandbox_server or --sandbox_block, not both")
        remote = SANDBOXES[self.sandbox_kind].remote
        if remote and not self._has_service:
            raise ValueError(f"--sandbox {self.sandbox_kind} needs --sandbox_server or --sandbox_block")
        if self._has_service and not remote:
            raise ValueError(f"--sandbox {self.sandbox_kind} is here: leave out --sandbox_server and --sandbox_block")
        return self

    @property
    def sandbox_kind(self) -> SandboxKind:
        """Return the kind of the sandboxes."""
        return self.sandbox or ("remote" if self._has_service else "bubblewrap")

    @property
    def _has_service(self) -> bool:
        return self.sandbox_server is not None or self.sandbox_block is not None
