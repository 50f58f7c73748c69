"""What a job's parameters say of the place of its sandboxes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from rollmill.config.parameter import Parameters, parameter

Place = Literal["bubblewrap", "docker", "remote"]


class SandboxPlace(Parameters):
    """Where sandboxes are: on this machine, or at a service."""

    sandbox: Place | None = parameter(
        None,
        "Sandboxes",
        "Sandboxes",
        "Where agents' commands and code run; remote with --docker_server, else bubblewrap.",
    )
    docker_server: str | None = parameter(
        None, "Sandboxes", "Docker server", "host:port of a sandbox service (/start, /execute, /cleanup).",
        metavar="HOST:PORT",
    )  # fmt: skip
    sandbox_block: str | None = parameter(
        None, "Sandboxes", "Sandbox block", "Name of a sandbox-service block: its address and token.", metavar="BLOCK"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.docker_server and self.sandbox_block:
            raise ValueError("give --docker_server or --sandbox_block, not both")
        remote = self.docker_server is not None or self.sandbox_block is not None
        if self.place == "remote" and not remote:
            raise ValueError("--sandbox remote needs --docker_server or --sandbox_block")
        if self.place != "remote" and remote:
            raise ValueError(f"--sandbox {self.place} is here: leave out --docker_server and --sandbox_block")
        return self

    @property
    def place(self) -> Place:
        """Where they are."""
        remote = self.docker_server is not None or self.sandbox_block is not None
        return self.sandbox or ("remote" if remote else "bubblewrap")
