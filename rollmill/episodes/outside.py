"""What a collection of episodes uses of the world outside: sandboxes, a search service, inference servers."""

from __future__ import annotations

import shlex
from typing import Any, Self

from pydantic import BaseModel, field_validator, model_validator

from rollmill.agent_rollouts.parameters import Place
from rollmill.episodes.settings import check_urls
from rollmill.parameter import parameter


class Outside(BaseModel):
    """Where code of agents runs, where documents are found, who serves the models."""

    sandbox: Place | None = parameter(
        None, "Sandboxes", "Sandboxes", "Where code of agents runs; remote with --docker_server, else bubblewrap."
    )
    sandbox_image: str = parameter(
        "", "Sandboxes", "Image", "Docker image with python3, for docker and remote; bubblewrap needs none.",
        metavar="IMAGE",
    )  # fmt: skip
    docker_server: str | None = parameter(
        None, "Sandboxes", "Docker server", "host:port of a sandbox service (/start, /execute, /cleanup).",
        metavar="HOST:PORT",
    )  # fmt: skip
    sandbox_block: str | None = parameter(
        None, "Sandboxes", "Sandbox block", "Name of a sandbox-service block: its address and token.", metavar="BLOCK"
    )
    code_timeout: float = parameter(
        10.0, "Sandboxes", "Code time-out", "Seconds that one program may run.", metavar="SECONDS", gt=0
    )
    memory_mb: int = parameter(1024, "Sandboxes", "Memory", "Of one sandbox, in MiB.", ge=16)
    processes: int = parameter(64, "Sandboxes", "Processes", "Of one sandbox.", ge=1)
    sandboxes_at_once: int | None = parameter(
        None, "Sandboxes", "Sandboxes at a time", "Else as many as there are cores.", ge=1, le=4096
    )

    search_server: str | None = parameter(
        None, "Search", "Search server", "host:port of a search service; else an index made here.",
        metavar="HOST:PORT",
    )  # fmt: skip
    search_block: str | None = parameter(
        None, "Search", "Search block", "Name of a search-service block: its address and token.", metavar="BLOCK"
    )

    base_url: list[str] = parameter(
        [], "Server", "Base URLs", "Running OpenAI-compatible servers (http://host:8000/v1); requests are balanced.",
        metavar="URL",
    )  # fmt: skip
    endpoint_block: str | None = parameter(
        None, "Server", "Endpoint block", "Name of an inference-endpoint block: URLs and key of running servers.",
        metavar="BLOCK",
    )  # fmt: skip
    server_block: str | None = parameter(
        None, "Server", "Server block", "Name of a vllm-server block: how this machine starts vLLM.", metavar="BLOCK"
    )
    vllm_args: str = parameter(
        "", "Server", "vLLM arguments", "More arguments for every vLLM, as in a shell, in one string.", metavar="ARGS"
    )
    model_port: int | None = parameter(None, "Server", "Port", "Port to serve at; else a free one.", ge=1, le=65535)
    request_timeout: float = parameter(
        600.0, "Server", "Request timeout", "Seconds that one request may take.", metavar="SECONDS", gt=0
    )
    max_retries: int = parameter(10, "Server", "Max retries", "Retries of a request that failed on the way.", ge=0)

    @field_validator("base_url", mode="before")
    @classmethod
    def _one_url_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("base_url")
    @classmethod
    def _urls_are_http(cls, urls: list[str]) -> list[str]:
        return check_urls(urls)

    @field_validator("vllm_args")
    @classmethod
    def _arguments_are_a_shell_line(cls, line: str) -> str:
        shlex.split(line)
        return line

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.base_url and self.endpoint_block:
            raise ValueError("give --base_url or --endpoint_block, not both")
        if self.search_server and self.search_block:
            raise ValueError("give --search_server or --search_block, not both")
        if self.docker_server and self.sandbox_block:
            raise ValueError("give --docker_server or --sandbox_block, not both")
        if self.place == "remote" and not (self.docker_server or self.sandbox_block):
            raise ValueError("--sandbox remote needs --docker_server or --sandbox_block")
        if self.place != "remote" and (self.docker_server or self.sandbox_block):
            raise ValueError(f"--sandbox {self.place} is here: leave out --docker_server and --sandbox_block")
        if self.place != "bubblewrap" and not self.sandbox_image:
            raise ValueError(f"--sandbox_image: required with --sandbox {self.place}: a Docker image with python3")
        if self.place == "bubblewrap" and self.sandbox_image:
            raise ValueError("--sandbox_image: bubblewrap takes none: leave it out, or use --sandbox docker")
        return self

    @property
    def place(self) -> Place:
        """Where agents' code runs."""
        remote = self.docker_server is not None or self.sandbox_block is not None
        return self.sandbox or ("remote" if remote else "bubblewrap")

    @property
    def external(self) -> bool:
        """Whether servers that are running already are used."""
        return bool(self.base_url or self.endpoint_block)

    @property
    def base_urls(self) -> list[str]:
        """Addresses of the running servers."""
        return self.base_url
