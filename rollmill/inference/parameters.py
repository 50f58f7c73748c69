"""What a job's parameters say of inference servers: those that run, or one of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import field_validator, model_validator

from rollmill.config.parameter import Parameters, ShellLine, parameter
from rollmill.inference.endpoints import CHAT_PATH

_VERSION = re.compile(r"v\d+(\.\d+)?((alpha|beta)\d*)?")
_SECRET = re.compile(r"(?i)([\w-]*[-_])?(api)?(key|token|secret|password|sig|signature|code|auth)")


class OwnServerParameters(Parameters):
    """How a server of our own is started."""

    server_block: str | None = parameter(
        None, "Server", "Server block", "Name of a vllm-server block: how this machine starts vLLM.", metavar="BLOCK"
    )
    vllm_args: ShellLine = parameter(
        "", "Server", "vLLM arguments", "More arguments for vLLM, as in a shell, in one string.", metavar="ARGS"
    )


class ServerParameters(OwnServerParameters):
    """Which servers are asked: those that run already, or one of our own. A job's `ServingParameters`."""

    base_url: list[str] = parameter(
        [], "Server", "Base URLs", "Running OpenAI-compatible servers (http://host:8000/v1); requests are balanced.",
        metavar="URL",
    )  # fmt: skip
    endpoint_block: str | None = parameter(
        None, "Server", "Endpoint block", "Name of an inference-endpoint block: URLs and key of running servers.",
        metavar="BLOCK",
    )  # fmt: skip
    model_port: int | None = parameter(None, "Server", "Port", "Port to serve at; else a free one.", ge=1, le=65535)
    max_retries: int = parameter(10, "Server", "Max retries", "Retries of a request that failed on the way.", ge=0)
    record_tokens: bool | None = parameter(
        None, "Server", "Record tokens",
        "Keep ids and log-probabilities of what is sampled; left out: where the server is a vLLM.",
    )  # fmt: skip
    drop_params: bool = parameter(
        False, "Server", "Drop parameters",
        "Leave out what a running server refuses of the sampling (temperature, top_p, ...), and let it decide.",
    )  # fmt: skip
    request_timeout: float = parameter(
        600.0, "Server", "Request timeout", "Seconds that one request may take.", metavar="SECONDS", gt=0
    )

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
    """Return addresses of servers, to which `/chat/completions` is added. Raises `ValueError` for one that is none.

    `/v1` is added where an address has no version: what has one (`/v1beta/openai`), a query (Azure's `api-version`),
    or ends in `/chat/completions` itself, stays as it is.
    """
    return [_checked_url(url) for url in urls]


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} does not start with http:// or https://")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        has_host = False
    if not has_host or parts.fragment or parts.username is not None:
        shown = url.rpartition("@")[2]  # what stands before may be a password
        raise ValueError(f"{shown!r} is no address of a server: give http://host:port/v1, and keys by block")
    if any(_SECRET.fullmatch(name) for name, _ in parse_qsl(parts.query)):
        raise ValueError(
            f"{url.partition('?')[0]!r}: a key in an address would be stored with the parameters: give it in "
            "VLLM_API_KEY, or as a header of an inference-endpoint block"
        )
    path = parts.path.rstrip("/")
    whole = path.endswith(CHAT_PATH)
    path = path.removesuffix(CHAT_PATH)
    if not (whole or parts.query or any(_VERSION.fullmatch(part) for part in path.split("/"))):
        path += "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
