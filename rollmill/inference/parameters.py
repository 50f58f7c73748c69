"""Parameters of inference servers: running ones, or a vLLM server that the job starts."""

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
    """Parameters of a server that the job starts."""

    server_block: str | None = parameter(
        None, "Server", "Server block", "Name of a vllm-server block: how this machine starts vLLM.", metavar="BLOCK"
    )
    vllm_args: ShellLine = parameter(
        "", "Server", "vLLM arguments", "More arguments for vLLM in one string, in shell syntax.", metavar="ARGS"
    )


class ServerParameters(OwnServerParameters):
    """Parameters of the servers that a job uses, running or started by it; implements `ServingParameters`."""

    base_url: list[str] = parameter(
        [], "Server", "Base URLs", "Running OpenAI-compatible servers (http://host:8000/v1); requests are balanced.",
        metavar="URL",
    )  # fmt: skip
    endpoint_block: str | None = parameter(
        None, "Server", "Endpoint block", "Name of an inference-endpoint block: URLs and key of running servers.",
        metavar="BLOCK",
    )  # fmt: skip
    model_port: int | None = parameter(None, "Server", "Port", "Port to serve at; without: a free one.", ge=1, le=65535)
    max_retries: int = parameter(10, "Server", "Max retries", "Retries of a failed request.", ge=0)
    record_tokens: bool | None = parameter(
        None, "Server", "Record tokens",
        "Record token ids and log-probabilities of completions; without: where the server is vLLM.",
    )  # fmt: skip
    drop_params: bool = parameter(
        False, "Server", "Drop parameters",
        "Leave out sampling parameters that a running server refuses (temperature, top_p, ...): its defaults apply.",
    )  # fmt: skip
    request_timeout: float = parameter(
        600.0, "Server", "Request timeout", "Seconds that one request may take.", metavar="SECONDS", gt=0
    )

    @field_validator("base_url", mode="before")
    @classmethod
    def _listify_url(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("base_url")
    @classmethod
    def _check_urls(cls, urls: list[str]) -> list[str]:
        return check_urls(urls)

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if self.base_url and self.endpoint_block:
            raise ValueError("give --base_url or --endpoint_block, not both")
        return self

    @property
    def external(self) -> bool:
        """Return whether running servers are used."""
        return bool(self.base_url or self.endpoint_block)

    @property
    def base_urls(self) -> list[str]:
        """Return the addresses of the running servers."""
        return self.base_url


def check_urls(urls: Iterable[str]) -> list[str]:
    """Return normalized addresses, to which `/chat/completions` can be appended. Raises `ValueError`.

    `/v1` is appended where an address has no version (`/v1beta/openai`), no query (Azure's `api-version`), and does not
    end in `/chat/completions` itself.
    """
    return [_normalize_url(url) for url in urls]


def _normalize_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} does not start with http:// or https://")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        has_host = False
    if not has_host or parts.fragment or parts.username is not None:
        shown = url.rpartition("@")[2]  # the part before may be a password
        raise ValueError(f"{shown!r} is not the address of a server: give http://host:port/v1, and keys in a block")
    if any(_SECRET.fullmatch(name) for name, _ in parse_qsl(parts.query)):
        raise ValueError(
            f"{url.partition('?')[0]!r}: a key in an address would be stored with the parameters: give it in "
            "VLLM_API_KEY, or as a header of an inference-endpoint block"
        )
    path = parts.path.rstrip("/")
    is_complete = path.endswith(CHAT_PATH)
    path = path.removesuffix(CHAT_PATH)
    if not (is_complete or parts.query or any(_VERSION.fullmatch(part) for part in path.split("/"))):
        path += "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
