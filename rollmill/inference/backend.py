"""A model that can be asked, for the time of a job: on a server of its own, or on those that are running."""

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
from rollmill.inference.probe import ListedModel, NoListingError, known_name, served_models
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.sampled_tokens import LogprobsMode, TokenSource
from rollmill.inference.server import ModelServer, ServerConfig
from rollmill.inference.tokenizer_hash import tokenizer_hash

log = logging.getLogger(__name__)

_LOGPROBS_MODE = "--logprobs-mode"


class EndpointConfig(BaseModel):
    """Where running servers are, and the key to them."""

    model_config = ConfigDict(frozen=True)

    base_urls: tuple[str, ...]
    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = {}
    """Sent with every request, beside the key."""


class ServedModel(NamedTuple):
    """What is to be served, and under which name."""

    path: str
    name: str
    log_path: Path
    adapter: Adapter | None = None
    """Served on the model in `path`."""
    also: Mapping[str, Adapter | None] = {}  # a proxy could not travel to a worker
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
    def record_tokens(self) -> bool | None:
        """Whether tokens are recorded; None: where the server is a vLLM."""
        ...

    @property
    def drop_params(self) -> bool:
        """Whether what servers refuse of the sampling is left out."""
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
    """Return the key in `VLLM_API_KEY`, which vLLM's own server reads too."""
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
    changes: RequestChanges = NO_CHANGES,
) -> Iterator[Served]:
    """Serve the model for the time of the block: by the servers that run already, or by one of our own.

    When it `is_given_up`, the start of our own ends at once, and the model may not be there. Raises `ServingError` when
    a server does not start, does not answer, or serves another model.

    Args:
        parameters: How servers are asked.
        wanted: The model.
        server: How this machine starts one.
        endpoint: Where running ones are, if that is a block.
        is_given_up: Says when nobody waits any more.
        changes: What running servers want otherwise in requests.
    """
    if parameters.external:
        urls = endpoint.base_urls if endpoint else tuple(parameters.base_urls)
        yield running(urls, (wanted.name, wanted.path), parameters, endpoint, changes=changes)
        return
    config = server or ServerConfig()
    client = own_client(parameters, wanted, config)
    with own_server(parameters, wanted, config, is_given_up=is_given_up) as local_server:
        yield Served(endpoints=[local_server.endpoint], model=wanted.name, client=client)


def own_client(parameters: ServingParameters, wanted: ServedModel, config: ServerConfig) -> ClientConfig:
    """Return how a server of our own is asked. Raises `InputError` for a tokenizer that cannot be read."""
    client = client_config(parameters, None)
    if parameters.record_tokens is False:
        return client
    mode = flag_value(_arguments(parameters, config), _LOGPROBS_MODE)
    known = next((name for name in get_args(LogprobsMode) if name == mode), None)
    source = TokenSource(tokenizer_hash(wanted.path), known)
    return client.model_copy(update={"token_source": source})


def client_config(parameters: ServingParameters, endpoint: EndpointConfig | None) -> ClientConfig:
    """Return how servers are asked: with the endpoint's key, or that of the environment."""
    key = (endpoint.api_key if endpoint else None) or environment_key()
    return ClientConfig(
        api_key=key,
        headers=endpoint.headers if endpoint else {},
        request_timeout_s=parameters.request_timeout,
        max_retries=parameters.max_retries,
    )


def listed_at(url: str, client: ClientConfig) -> dict[str, ListedModel] | None:
    """Return the models that a server lists; None where it has no list. Raises `NotAnsweringError`."""
    key = client.api_key.get_secret_value() if client.api_key else None
    try:
        return served_models(url, api_key=key, headers=client.headers)
    except NoListingError:
        return None


def running(
    urls: Sequence[str],
    names: tuple[str, ...],
    parameters: ServingParameters,
    endpoint: EndpointConfig | None,
    *,
    changes: RequestChanges = NO_CHANGES,
) -> Served:
    """Return the model that servers know by one of `names`; the first of them where a server lists no models.

    Raises `ServingError` as `known_name` does, `InputError` for a tokenizer that cannot be read.

    Args:
        urls: The servers' addresses.
        names: The model's name, or what else it may be known by.
        parameters: How the servers are asked.
        endpoint: Where they and their key come from, if that is a block.
        changes: What they want otherwise in requests.
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
        # Of whatever path is a folder here: the user's own name for the model, or the server's. How their
        # log-probabilities are made, servers do not say.
        hashes = (tokenizer_hash(path) for path in (*names, *(model.root for model in listed)))
        source = TokenSource(next(filter(None, hashes), None), None)
        client = client.model_copy(update={"token_source": source})
    return Served(endpoints=[Endpoint(url) for url in urls], model=served_names[0], client=client)


def own_server(
    parameters: ServingParameters,
    wanted: ServedModel,
    config: ServerConfig,
    *,
    is_given_up: Callable[[], bool] | None = None,
) -> ModelServer:
    """Return a server of our own, for a `with` block; `parameters` say how, beyond `config`."""
    if any((wanted.adapter, *wanted.also.values())) and not has_accelerator():
        log.warning(
            "on a CPU vLLM is many times slower with an adapter: merge it (rollmill train --merge) to be faster"
        )
    return ModelServer(
        config.model_copy(update={"arguments": _arguments(parameters, config)}),
        model_path=wanted.path,
        model_name=wanted.name,
        adapter=wanted.adapter,
        also=wanted.also,
        log_path=wanted.log_path,
        port=parameters.model_port,
        api_key=environment_key(),
        is_given_up=is_given_up,
    )


def _arguments(parameters: ServingParameters, config: ServerConfig) -> tuple[str, ...]:
    """Return the arguments of a vLLM of our own, of which the last one of a name wins.

    By itself vLLM gives the log-probabilities of the model, before temperature and top-p: what is sampled from is
    another distribution, and importance weights need that one.
    """
    recording = () if parameters.record_tokens is False else (_LOGPROBS_MODE, "processed_logprobs")
    return (*recording, *config.arguments, *shlex.split(parameters.vllm_args))
