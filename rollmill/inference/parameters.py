"""What a job's parameters say of inference servers: those that run, or one of our own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import field_validator, model_validator

from rollmill.config.parameter import Parameters, ShellLine, parameter


class ServerParameters(Parameters):
    """A job's `ServingParameters`."""

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
    vllm_args: ShellLine = parameter(
        "", "Server", "vLLM arguments", "More arguments for vLLM, as in a shell, in one string.", metavar="ARGS"
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

    @model_validator(mode="after")
    def _one_kind_of_server(self) -> Self:
        if self.base_url and self.endpoint_block:
            raise ValueError("give --base_url or --endpoint_block, not both")
        return self

    @property
    def external(self) -> bool:
        """Whether servers that are running already are used."""
        return bool(self.base_url or self.endpoint_block)

    @property
    def base_urls(self) -> list[str]:
        """Addresses of the running servers."""
        return self.base_url


def check_urls(urls: Iterable[str]) -> list[str]:
    """Addresses of servers, ending in `/v1`. Raises `ValueError` for one that is none."""
    checked = []
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} does not start with http:// or https://")
        trimmed = url.rstrip("/")
        checked.append(trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1")
    return checked
