"""The blocks of inference: running servers, and the settings for starting vLLM on a machine."""

from __future__ import annotations

import re

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, field_validator

from blocks.loading import load_block
from rollmill.inference.backend import EndpointConfig, listed_at
from rollmill.inference.client import ClientConfig
from rollmill.inference.http_service import as_header
from rollmill.inference.parameters import check_urls
from rollmill.inference.server import ServerConfig
from rollmill.inference.vllm_install import describe_vllm

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


class InferenceEndpoint(Block):
    """Running OpenAI-compatible servers, and their key.

    With `--endpoint_block NAME` a flow uses these servers instead of starting one.
    """

    _block_type_name = "Inference endpoint"
    _block_type_slug = "inference-endpoint"
    _description = "OpenAI-compatible servers that are running already, such as vLLM's, and the key to them."

    base_urls: list[str] = Field(
        min_length=1,
        description="Addresses such as http://host:8000/v1; requests are balanced over them.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="Sent as a bearer token; leave empty for none, or for that of VLLM_API_KEY."
    )
    secret_headers: dict[str, SecretStr] = Field(
        default={}, description="Sent with every request besides, such as api-key for Azure; kept secret."
    )

    @field_validator("base_urls")
    @classmethod
    def _are_addresses(cls, urls: list[str]) -> list[str]:
        return check_urls(urls)

    @field_validator("secret_headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header")
            as_header(value, f"header {name}")
        return headers

    def check(self) -> str:
        """Return the models that each address serves, in one line.

        Raises `ServingError` where one does not answer, or refuses the key.
        """
        client = ClientConfig(api_key=self.api_key, headers=self.secret_headers)
        listings = {url: listed_at(url, client) for url in self.base_urls}
        return ", ".join(
            f"{url}: {'answers, and lists no models' if models is None else ' '.join(models)}"
            for url, models in listings.items()
        )

    def to_config(self) -> EndpointConfig:
        """Return the configuration object of the domain."""
        return EndpointConfig(base_urls=tuple(self.base_urls), api_key=self.api_key, headers=self.secret_headers)


class VLLMServer(Block):
    """Settings for starting vLLM on a machine.

    With `--server_block NAME` a flow starts its servers with them; without, with the Python of `make setup` and vLLM's
    defaults.
    """

    _block_type_name = "vLLM server"
    _block_type_slug = "vllm-server"
    _description = "How a machine starts vLLM: its Python, arguments and environment, and how long it may take."

    python: str = Field(
        default="", description="Path of the Python that has vLLM; empty: the project's own, made by make setup."
    )
    arguments: list[str] = Field(
        default=[], description="More arguments for every server, such as --max-model-len 8192."
    )
    environment: dict[str, str] = Field(default={}, description="More environment variables; no secrets.")
    startup_timeout_s: float = Field(default=1800, gt=0, description="Seconds until a server must be ready.")
    max_restarts: int = Field(default=3, ge=0, description="How often a server that died is started again.")

    def check(self) -> str:
        """Return the Python that will be used, its vLLM and this machine's GPUs, in one line.

        Runs that Python. Raises `InputError` if it does not exist, and `ServingError` if it has no vLLM.
        """
        return describe_vllm(self.to_config().interpreter(), self.environment)

    def to_config(self) -> ServerConfig:
        """Return the configuration object of the domain."""
        return ServerConfig(
            python=self.python,
            arguments=tuple(self.arguments),
            environment=self.environment,
            startup_timeout_s=self.startup_timeout_s,
            max_restarts=self.max_restarts,
        )


def endpoint_config(name: str | None) -> EndpointConfig | None:
    """Return the config of a saved `InferenceEndpoint`; None for no name.

    Raises `InputError` where there is no such block.
    """
    return None if name is None else load_block(InferenceEndpoint, name).to_config()


def server_config(name: str | None) -> ServerConfig | None:
    """Return the config of a saved `VLLMServer`; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(VLLMServer, name).to_config()
