"""A model that can be asked, for the time of a job: on a server of its own, or on those that are running."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, SecretStr

from rollmill.errors import ServingError
from rollmill.inference.adapter import Adapter
from rollmill.inference.client import ClientConfig
from rollmill.inference.endpoints import Endpoint
from rollmill.inference.machine import has_accelerator
from rollmill.inference.probe import check_model
from rollmill.inference.server import ModelServer, ServerConfig

log = logging.getLogger(__name__)


class EndpointConfig(BaseModel):
    """Where running servers are, and the key to them."""

    model_config = ConfigDict(frozen=True)

    base_urls: tuple[str, ...]
    api_key: SecretStr | None = None


class ServedModel(NamedTuple):
    """What is to be served, and under which name."""

    path: str
    name: str
    log_path: Path
    adapter: Adapter | None = None
    """Served on the model in `path`."""
    also: Mapping[str, Adapter | None] = MappingProxyType({})
    """Further names on the same server: of adapters, or of the model itself."""


class ServingParameters(Protocol):
    """What a job's parameters say of servers."""

    @property
    def external(self) -> bool:
        """Whether servers that are running already are used."""
        ...

    @property
    def base_urls(self) -> list[str]:
        """Their addresses."""
        ...

    @property
    def request_timeout(self) -> float:
        """Seconds."""
        ...

    @property
    def max_retries(self) -> int:
        """Of a request that failed on the way."""
        ...

    @property
    def vllm_args(self) -> str:
        """More arguments for vLLM, as in a shell."""
        ...

    @property
    def model_port(self) -> int | None:
        """Where to serve; None for a free port."""
        ...


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
    parameters: ServingParameters,
    wanted: ServedModel,
    *,
    server: ServerConfig | None = None,
    endpoint: EndpointConfig | None = None,
    is_given_up: Callable[[], bool] | None = None,
) -> Iterator[Served]:
    """The model, served for the time of the block: by the servers that run already, or by one of our own.

    When it `is_given_up`, the start of our own ends at once, and the model may not be there. Raises `ServingError` when
    a server does not start, does not answer, or serves another model.
    """
    client = client_config(parameters, endpoint)
    if parameters.external:
        urls = endpoint.base_urls if endpoint else tuple(parameters.base_urls)
        yield running(urls, (wanted.name, wanted.path), client)
        return
    with own_server(parameters, wanted, server or ServerConfig(), is_given_up=is_given_up) as own:
        yield Served(endpoints=[own.endpoint], model=wanted.name, client=client)


def client_config(parameters: ServingParameters, endpoint: EndpointConfig | None) -> ClientConfig:
    """How servers are asked: with the endpoint's key, or that of the environment."""
    key = (endpoint.api_key if endpoint else None) or environment_key()
    return ClientConfig(api_key=key, request_timeout_s=parameters.request_timeout, max_retries=parameters.max_retries)


def running(urls: Sequence[str], names: tuple[str, ...], client: ClientConfig) -> Served:
    """The model that servers know by one of `names`. Raises `ServingError` as `check_model` does."""
    key = client.api_key.get_secret_value() if client.api_key else None
    found = [check_model(url, names, api_key=key) for url in urls]
    if len(set(found)) > 1:
        known = ", ".join(f"{url}: {name}" for url, name in zip(urls, found, strict=True))
        raise ServingError(f"the servers know the model by different names ({known}): give them the same one")
    return Served(endpoints=[Endpoint(url) for url in urls], model=found[0], client=client)


def own_server(
    parameters: ServingParameters,
    wanted: ServedModel,
    config: ServerConfig,
    *,
    is_given_up: Callable[[], bool] | None = None,
) -> ModelServer:
    """A server of our own, for a `with` block; `parameters` say how, beyond `config`."""
    if any((wanted.adapter, *wanted.also.values())) and not has_accelerator():
        log.warning(
            "on a CPU vLLM is many times slower with an adapter: merge it (flows.train_lora --merge) to be faster"
        )
    arguments = (*config.arguments, *shlex.split(parameters.vllm_args))
    return ModelServer(
        config.model_copy(update={"arguments": arguments}),
        model_path=wanted.path,
        model_name=wanted.name,
        adapter=wanted.adapter,
        also=wanted.also,
        log_path=wanted.log_path,
        port=parameters.model_port,
        api_key=environment_key(),
        is_given_up=is_given_up,
    )
