"""The servers of a rejection sampling run: its own, or those that are running."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, SecretStr

from rollmill.errors import ServingError
from rollmill.rejection.checkpoint import Checkpoint
from rollmill.rejection.parameters import RejectSampling
from rollmill.serving.client import ClientConfig
from rollmill.serving.endpoints import Endpoint
from rollmill.serving.probe import check_model
from rollmill.serving.server import ModelServer, ServerConfig


class EndpointConfig(BaseModel):
    """Where running servers are, and the key to them."""

    model_config = ConfigDict(frozen=True)

    base_urls: tuple[str, ...]
    api_key: SecretStr | None = None


class Served(BaseModel):
    """A model that can be asked."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    endpoints: list[Endpoint]
    model: str
    """The name under which the servers know it."""
    client: ClientConfig


def environment_key() -> SecretStr | None:
    """The key in `VLLM_API_KEY`, which vLLM's own server reads too."""
    key = os.environ.get("VLLM_API_KEY")
    return SecretStr(key) if key else None


@contextmanager
def served(
    parameters: RejectSampling,
    checkpoint: Checkpoint,
    *,
    server: ServerConfig | None = None,
    endpoint: EndpointConfig | None = None,
) -> Iterator[Served]:
    """The model, served for the time of the block: by the servers that run already, or by one of our own.

    Raises `ServingError` when a server does not start, does not answer, or serves another model.
    """
    key = (endpoint.api_key if endpoint else None) or environment_key()
    client = ClientConfig(api_key=key, request_timeout_s=parameters.request_timeout, max_retries=parameters.max_retries)
    if parameters.external:
        urls = endpoint.base_urls if endpoint else tuple(parameters.base_urls)
        names = (checkpoint.name, checkpoint.path)
        found = [check_model(url, names, api_key=key.get_secret_value() if key else None) for url in urls]
        if len(set(found)) > 1:
            known = ", ".join(f"{url}: {name}" for url, name in zip(urls, found, strict=True))
            raise ServingError(f"the servers know the model by different names ({known}): give them the same one")
        yield Served(endpoints=[Endpoint(url) for url in urls], model=found[0], client=client)
        return
    config = server or ServerConfig()
    arguments = (*config.arguments, *shlex.split(parameters.vllm_args))
    own = ModelServer(
        config.model_copy(update={"arguments": arguments}),
        model_path=checkpoint.path,
        model_name=checkpoint.name,
        log_path=checkpoint.log_path,
        port=parameters.model_port,
        api_key=key,
    )
    with own as running:
        yield Served(endpoints=[running.endpoint], model=checkpoint.name, client=client)
