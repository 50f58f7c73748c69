"""Serve a model for a job: start a vLLM server for it, or use running servers."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, get_args

from pydantic import BaseModel, ConfigDict, SecretStr

from rollmill.errors import ServingError
from rollmill.inference.adapter import Adapter
from rollmill.inference.client import ClientConfig
from rollmill.inference.endpoints import Endpoint
from rollmill.inference.machine import flag_value, has_accelerator
from rollmill.inference.multi_server import assigned_devices
from rollmill.inference.probe import ListedModel, NoListingError, known_name, served_models
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.sampled_tokens import LogprobsMode, TokenSource
from rollmill.inference.server import ModelServer, ServerConfig
from rollmill.inference.tokenizer_hash import tokenizer_hash

log = logging.getLogger(__name__)

_LOGPROBS_MODE = "--logprobs-mode"


class EndpointConfig(BaseModel):
    """Addresses of running servers, and the key for them."""

    model_config = ConfigDict(frozen=True)

    base_urls: tuple[str, ...]
    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = {}
    """Additional headers of every request."""


class ServedModel(NamedTuple):
    """A model to serve, and its name."""

    path: str
    """Directory or hub id."""
    name: str
    log_path: Path
    adapter: Adapter | None = None
    """A LoRA adapter on the model in `path`, which `name` then refers to."""
    also: Mapping[str, Adapter | None] = {}  # not a MappingProxyType, which cannot be pickled for a worker
    """Further names on the same server: of adapters, or (None) of the base model."""


class ServingParameters(Protocol):
    """The parameters of a job that concern its servers."""

    @property
    def external(self) -> bool:
        """Return whether running servers are used."""
        ...

    @property
    def base_urls(self) -> list[str]:
        """Return the addresses of running servers."""
        ...

    @property
    def request_timeout(self) -> float:
        """Return the timeout of a request, in seconds."""
        ...

    @property
    def max_retries(self) -> int:
        """Return how often a failed request is sent again."""
        ...

    @property
    def record_tokens(self) -> bool | None:
        """Return whether tokens are recorded; None to record them where the server is vLLM."""
        ...

    @property
    def drop_params(self) -> bool:
        """Return whether sampling parameters that servers refuse are left out."""
        ...

    @property
    def vllm_args(self) -> str:
        """Return more arguments for vLLM, in shell syntax."""
        ...

    @property
    def model_port(self) -> int | None:
        """Return the port to serve at; None for a free one."""
        ...


class Served(BaseModel):
    """A served model: its endpoints, its name, and the client's configuration."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    endpoints: list[Endpoint]
    model: str
    """The model's name in requests."""
    client: ClientConfig


def environment_key() -> SecretStr | None:
    """Return the key in `VLLM_API_KEY`, which vLLM's server reads, too; None where there is none."""
    key = os.environ.get("VLLM_API_KEY")
    return SecretStr(key) if key else None


@contextmanager
def serve_model(
    parameters: ServingParameters,
    model: ServedModel,
    *,
    server: ServerConfig | None = None,
    endpoint: EndpointConfig | None = None,
    is_given_up: Callable[[], bool] | None = None,
    changes: RequestChanges = NO_CHANGES,
) -> Iterator[Served]:
    """Use the running servers that the parameters name, or start a vLLM server until the end of the block.

    When `is_given_up` returns True, the start of a server ends at once, and the model may not be served. Raises
    `ServingError` when a server does not start, does not answer, or serves another model, and `InputError` as
    `assigned_devices` does.

    Args:
        parameters: Server parameters of the job.
        model: The model to serve, or to look for on running servers.
        server: How to start vLLM on this machine; None for the defaults.
        endpoint: An endpoint block with addresses and key; None to use the parameters' addresses.
        is_given_up: Returns True when the model is not needed any more; None for never.
        changes: Changes that running servers require in requests.
    """
    if parameters.external:
        urls = endpoint.base_urls if endpoint else tuple(parameters.base_urls)
        yield use_running_servers(urls, (model.name, model.path), parameters, endpoint, changes=changes)
        return
    with assigned_devices(server or ServerConfig(), 1, parameters.vllm_args) as (config,):
        client = local_client_config(parameters, model, config)
        with make_local_server(parameters, model, config, is_given_up=is_given_up) as local_server:
            yield Served(endpoints=[local_server.endpoint], model=model.name, client=client)


def local_client_config(parameters: ServingParameters, model: ServedModel, config: ServerConfig) -> ClientConfig:
    """Return the client configuration for a server that we start.

    Raises `InputError` for a tokenizer that cannot be read.
    """
    client = client_config(parameters, None)
    if parameters.record_tokens is False:
        return client
    mode = flag_value(_arguments(parameters, config), _LOGPROBS_MODE)
    known = next((name for name in get_args(LogprobsMode) if name == mode), None)
    source = TokenSource(tokenizer_hash(model.path), known)
    return client.model_copy(update={"token_source": source})


def client_config(parameters: ServingParameters, endpoint: EndpointConfig | None) -> ClientConfig:
    """Return the client configuration for servers, with the endpoint's key or that of the environment."""
    key = (endpoint.api_key if endpoint else None) or environment_key()
    return ClientConfig(
        api_key=key,
        headers=endpoint.headers if endpoint else {},
        request_timeout_s=parameters.request_timeout,
        max_retries=parameters.max_retries,
    )


def listed_at(url: str, client: ClientConfig) -> dict[str, ListedModel] | None:
    """Return the models that a server lists; None where it cannot list them. Raises `NotAnsweringError`."""
    key = client.api_key.get_secret_value() if client.api_key else None
    try:
        return served_models(url, api_key=key, headers=client.headers)
    except NoListingError:
        return None


def use_running_servers(
    urls: Sequence[str],
    names: tuple[str, ...],
    parameters: ServingParameters,
    endpoint: EndpointConfig | None,
    *,
    changes: RequestChanges = NO_CHANGES,
) -> Served:
    """Find a model on running servers by one of its `names`; a server without a list is assumed to know the first one.

    Raises `ServingError` as `known_name` does, `InputError` for a tokenizer that cannot be read.

    Args:
        urls: Addresses of the servers.
        names: Names that the model may have there, in order of preference.
        parameters: Server parameters of the job.
        endpoint: The endpoint block with the servers' key and headers, if there is one.
        changes: Changes that the servers require in requests.
    """
    client = client_config(parameters, endpoint).model_copy(update={"changes": changes})
    listings = [listed_at(url, client) for url in urls]
    served_names = [
        changes.model or names[0] if models is None else known_name(url, names, models)
        for url, models in zip(urls, listings, strict=True)
    ]
    if len(set(served_names)) > 1:
        known = ", ".join(f"{url}: {name}" for url, name in zip(urls, served_names, strict=True))
        raise ServingError(f"the servers know the model by different names ({known}): give them the same one")
    listed = [models[served_names[0]] for models in listings if models]
    is_vllm = len(listed) == len(urls) and all(model.owner == "vllm" for model in listed)
    if parameters.record_tokens or (parameters.record_tokens is None and is_vllm):
        # The tokenizer is hashed from the first of these paths that is a folder on this machine. Servers do not report
        # their logprobs mode.
        hashes = (tokenizer_hash(path) for path in (*names, *(model.root for model in listed)))
        source = TokenSource(next(filter(None, hashes), None), None)
        client = client.model_copy(update={"token_source": source})
    return Served(endpoints=[Endpoint(url) for url in urls], model=served_names[0], client=client)


def make_local_server(
    parameters: ServingParameters,
    model: ServedModel,
    config: ServerConfig,
    *,
    is_given_up: Callable[[], bool] | None = None,
) -> ModelServer:
    """Return a vLLM server for a model; it starts when it is entered as a context manager.

    Args:
        parameters: Server parameters of the job: port, arguments, recording of tokens.
        model: The model to serve.
        config: How this machine runs vLLM.
        is_given_up: Returns True when the server is not needed any more, which ends its start; None for never.
    """
    if any((model.adapter, *model.also.values())) and not has_accelerator():
        log.warning(
            "on a CPU vLLM is many times slower with an adapter: merge it (rollmill train --merge) to be faster"
        )
    return ModelServer(
        config.model_copy(update={"arguments": _arguments(parameters, config)}),
        model_path=model.path,
        model_name=model.name,
        adapter=model.adapter,
        also=model.also,
        log_path=model.log_path,
        port=parameters.model_port,
        api_key=environment_key(),
        is_given_up=is_given_up,
    )


def _arguments(parameters: ServingParameters, config: ServerConfig) -> tuple[str, ...]:
    """Return the arguments of a vLLM server that we start; of repeated ones the last counts.

    vLLM's default logprobs are the model's, before temperature and top-p. Importance weights need those of the
    distribution that is sampled from, so that processed ones are requested.
    """
    recording = () if parameters.record_tokens is False else (_LOGPROBS_MODE, "processed_logprobs")
    return (*recording, *config.arguments, *shlex.split(parameters.vllm_args))
