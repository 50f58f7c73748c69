"""Trial requests before a run: find the request fields that running servers refuse, and check that they answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import orjson

from rollmill.errors import InputError, ServingError
from rollmill.inference.backend import EndpointConfig, ServingParameters, client_config, listed_at
from rollmill.inference.client import ChatClient, ClientConfig, RequestFailedError
from rollmill.inference.endpoints import CHAT_PATH, Endpoint, EndpointPool, api_url
from rollmill.inference.probe import ListedModel, NotAnsweringError, known_name
from rollmill.inference.request_changes import NO_CHANGES, SEED, RequestChanges, refused_parameter
from rollmill.inference.sampled_tokens import REQUEST_FIELDS
from rollmill.terminal.interruption import result_of

ResultT = TypeVar("ResultT")

MODEL = "model"
"""Model role in jobs with one model."""

_TAKES_ALL = ("vllm", "sglang")
"""Owners of listed models whose servers accept every field that a job may send."""
_MOST_CHANGES = 12
_LONGEST_S = 20.0
"""Timeout in seconds: servers refuse fields at once, so that a slower response means that they were accepted."""
_RETRIES = 2
_QUESTION = [{"role": "user", "content": "Say OK."}]
_REFUSALS = ("http_400", "http_422")
_NO_SUCH_PATH = ("http_404", "http_405")
_NO_MODEL = re.compile(
    r"(?i)\b(no|unknown|invalid) model|model\b.{0,200}\b(not (found|exist|available)|does not exist)"
)


class TrialRequest(NamedTuple):
    """A job's requests to running servers, without messages and seeds."""

    parameters: ServingParameters
    urls: tuple[str, ...]
    names: tuple[str, ...]
    """Names that the model may have on the servers, in order of preference."""
    fields: Mapping[str, Any]
    endpoint: EndpointConfig | None = None
    """The endpoint block with the servers' key and headers, if there is one."""


def find_changes(request: TrialRequest, *, begun: RequestChanges = NO_CHANGES) -> RequestChanges:
    """Send one short request to each server, and again with what it refuses renamed or left out; return the changes.

    Servers that accept all fields, by the owner of their listed models, get no trial request, nor do servers that do
    not answer now, since the run itself waits for them. Raises `InputError` for a sampling parameter that is refused
    without `--drop_params`, and for a token limit beyond the context; `ServingError` where no request can be answered.

    Args:
        request: The request to try, and the servers.
        begun: The changes with which the run began, which are kept where no server answers now.
    """
    changes = NO_CHANGES
    for url in request.urls:
        client = client_config(request.parameters, request.endpoint)
        try:
            listed = listed_at(url, client)
        except NotAnsweringError:
            return changes if changes.differs else begun
        model = None if listed is None else known_name(url, request.names, listed)
        if listed is not None and model is not None:
            _check_context(url, listed[model], request.fields)
            if listed[model].owner in _TAKES_ALL:
                continue
        trial = _Trial(url, request, client, drop_params=request.parameters.drop_params)
        names = (model,) if model is not None else request.names
        settled = trial.settle(changes, names, is_listed=listed is not None)
        if settled is not None:
            changes = settled
        elif not changes.differs:
            changes = begun
    return changes


def _check_context(url: str, listed: ListedModel, fields: Mapping[str, Any]) -> None:
    limit, length = fields.get("max_tokens"), listed.max_model_len
    if length is not None and isinstance(limit, int) and limit >= length:
        raise InputError(
            f"--max_tokens {limit} leaves no room for a prompt: the context at {url} has {length} tokens "
            f"(max_model_len): give less than {length}, or start the server with a longer one"
        )


class _Trial:
    """The trial requests to one server.

    Args:
        url: Address of the server.
        request: The request to try.
        client: The run's client configuration.
        drop_params: Whether sampling parameters that the server refuses may be left out.
    """

    def __init__(self, url: str, request: TrialRequest, client: ClientConfig, *, drop_params: bool) -> None:
        self._url = url
        # The same fields as in the run: `use_running_servers` requests tokens from other servers than vLLM only with
        # `--record_tokens`.
        self._fields = {**request.fields, SEED: 0, **(REQUEST_FIELDS if request.parameters.record_tokens else {})}
        limits = {"max_retries": _RETRIES, "request_timeout_s": min(_LONGEST_S, client.request_timeout_s)}
        self._client = client.model_copy(update=limits)
        self._drop_params = drop_params

    def settle(self, changes: RequestChanges, names: tuple[str, ...], *, is_listed: bool) -> RequestChanges | None:
        """Return the changes with which the server accepts a request; None where it cannot answer now.

        Args:
            changes: The changes that the job's other servers require.
            names: Names of the model, tried one after the other.
            is_listed: Whether the server lists the name.
        """
        name, *others = names
        first = changes
        for _ in range(_MOST_CHANGES):
            failure = _run_in_thread(self._ask(name, changes))
            if failure is None:
                return changes if is_listed else changes.model_copy(update={"model": name})
            if not is_listed and others and _refuses_model(failure):
                name = others.pop(0)
                continue
            changed = self._changed(changes, failure)
            if changed is None:
                return changes if failure.final or changes != first else None
            changes = changed
        raise ServingError(f"{self._url} refuses one parameter after another: {', '.join(changes.left_out)}")

    async def _ask(self, model: str, changes: RequestChanges) -> RequestFailedError | None:
        config = self._client.model_copy(update={"changes": changes})
        body = orjson.dumps({"model": model, "messages": _QUESTION, **self._fields})
        try:
            async with ChatClient(EndpointPool([Endpoint(self._url)]), config) as client:
                await client.complete(body)
        except RequestFailedError as failure:
            return failure
        return None

    def _changed(self, changes: RequestChanges, failure: RequestFailedError) -> RequestChanges | None:
        """Return the changes with one more for a failure; None where it names no request field. Raises `InputError`."""
        if failure.too_long:
            raise InputError(
                f"--max_tokens {self._fields.get('max_tokens')} does not fit into the server's context: "
                f"{failure.message}: give a smaller one"
            )
        if not failure.final:
            return None
        if failure.type not in _REFUSALS:
            where = "" if self._url in failure.message else f"{self._url}: "
            raise ServingError(f"{where}{failure.message}{self._address_advice(failure)}")
        sent = {changes.renamed.get(name, name): value for name, value in {**self._fields, "stream": False}.items()}
        fields = {name: value for name, value in sent.items() if name not in changes.left_out}
        name = refused_parameter(fields, failure.named, failure.message.partition(" answers ")[2] or failure.message)
        if name is None:
            return None
        if name == "tools":
            raise InputError(
                f"the server accepts no tools: {failure.message}: have the agent write its commands as text"
            )
        if name in REQUEST_FIELDS:
            raise InputError(f"the server returns no tokens: {failure.message}: leave --record_tokens out")
        changed = changes.changed_for(name, failure.message)
        if changed is None:
            raise InputError(f"--{name} {fields[name]}: {failure.message}: give another value")
        if name in changed.of_sampling and not self._drop_params:
            raise InputError(
                f"the server refuses {name} {fields[name]}: {failure.message}: give another --{name}, or --drop_params "
                "to leave it out, so that the server's default applies"
            )
        return changed

    def _address_advice(self, failure: RequestFailedError) -> str:
        """Return advice for a server that does not know the path: `/v1`, which is added, is not right for all."""
        if failure.type not in _NO_SUCH_PATH or _refuses_model(failure, by_status=False):
            return ""
        complete_url = api_url(self._url.removesuffix("/v1"), CHAT_PATH)
        return f" (if the server has no /v1, give {complete_url} as --base_url)" if self._url.endswith("/v1") else ""


def _run_in_thread(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine on an event loop in another thread, since this one may have a loop, and must handle signals."""
    threads = ThreadPoolExecutor(1, thread_name_prefix="trial")
    try:
        return result_of(threads.submit(asyncio.run, coroutine))
    finally:
        threads.shutdown(wait=False)


def _refuses_model(failure: RequestFailedError, *, by_status: bool = True) -> bool:
    """Return whether a server refuses the model's name; `by_status` counts every 404, also that of an unknown path."""
    if by_status and failure.type == "http_404":
        return True
    names_model = "model" in failure.named or _NO_MODEL.search(failure.message) is not None
    return names_model and failure.type in ("http_404", *_REFUSALS)
