"""Parameters of the tools of environments: sandboxes and search."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from rollmill.config.parameter import parameter
from rollmill.sandboxes.parameters import SandboxParameters
from rollmill.sandboxes.registry import SANDBOXES


class ToolParameters(SandboxParameters):
    """Sandboxes for the code of agents, and the search index."""

    sandbox_image: str = parameter(
        "", "Sandboxes", "Image", "Docker image with python3, for docker and remote; bubblewrap needs none.",
        metavar="IMAGE",
    )  # fmt: skip
    code_timeout: float = parameter(
        10.0, "Sandboxes", "Code time-out", "Seconds that one program may run.", metavar="SECONDS", gt=0
    )
    memory_mb: int = parameter(1024, "Sandboxes", "Memory", "Memory of one sandbox, in MiB.", ge=16)
    processes: int = parameter(64, "Sandboxes", "Processes", "Most processes in one sandbox.", ge=1)
    max_sandboxes: int | None = parameter(
        None, "Sandboxes", "Most sandboxes", "Sandboxes at a time; else as many as there are cores.", ge=1, le=4096,
        aliases=("sandboxes_at_once",),
    )  # fmt: skip

    search_server: str | None = parameter(
        None, "Search", "Search server", "host:port of a search service; else an index on this machine.",
        metavar="HOST:PORT",
    )  # fmt: skip
    search_block: str | None = parameter(
        None, "Search", "Search block", "Name of a search-service block: its address and token.", metavar="BLOCK"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.search_server and self.search_block:
            raise ValueError("give --search_server or --search_block, not both")
        needs_image = not SANDBOXES[self.sandbox_kind].from_folders
        if needs_image and not self.sandbox_image:
            kind = self.sandbox_kind
            raise ValueError(f"--sandbox_image: required with --sandbox {kind}: a Docker image with python3")
        if self.sandbox_image and not needs_image:
            raise ValueError(f"--sandbox_image: {self.sandbox_kind} takes none: leave it out, or use --sandbox docker")
        return self
