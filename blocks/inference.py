"""Inference: servers that run somewhere, and how this machine starts its own."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.loading import load_block
from rollmill.serving.probe import served_models
from rollmill.serving.served import EndpointConfig
from rollmill.serving.server import ServerConfig


class InferenceEndpoint(Block):
    """OpenAI-compatible servers that are running, and the key to them."""

    _block_type_name = "Inference endpoint"
    _block_type_slug = "inference-endpoint"

    base_urls: list[str] = Field(min_length=1, description="Addresses ending in /v1; requests are balanced over them.")
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token; leave empty for none.")

    def check(self) -> dict[str, list[str]]:
        """The models served at each address. Raises `ServingError` where none answers."""
        key = self.api_key.get_secret_value() if self.api_key else None
        return {url: list(served_models(url, api_key=key)) for url in self.base_urls}

    def to_config(self) -> EndpointConfig:
        """The domain's own config object."""
        return EndpointConfig(base_urls=tuple(self.base_urls), api_key=self.api_key)


class VLLMServer(Block):
    """How a machine starts vLLM."""

    _block_type_name = "vLLM server"
    _block_type_slug = "vllm-server"

    python: str = Field(default="", description="Python of the environment that holds vLLM; empty: the project's own.")
    arguments: list[str] = Field(default=[], description="More arguments for every server started.")
    environment: dict[str, str] = Field(default={}, description="More environment variables; no secrets.")
    startup_timeout_s: float = Field(default=1800, gt=0, description="Seconds until a server must be ready.")
    max_restarts: int = Field(default=3, ge=0, description="How often a server that died is started again.")

    def check(self) -> str:
        """The interpreter that will be used. Raises `InputError` where it is not there."""
        return self.to_config().interpreter()

    def to_config(self) -> ServerConfig:
        """The domain's own config object."""
        return ServerConfig(
            python=self.python,
            arguments=tuple(self.arguments),
            environment=self.environment,
            startup_timeout_s=self.startup_timeout_s,
            max_restarts=self.max_restarts,
        )


def endpoint_config(name: str | None) -> EndpointConfig | None:
    """The config of a saved `InferenceEndpoint`; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(InferenceEndpoint, name).to_config()


def server_config(name: str | None) -> ServerConfig | None:
    """The config of a saved `VLLMServer`; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(VLLMServer, name).to_config()
