"""Trying a request before a run: what running servers refuse of it, and whether it can be answered at all."""

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
"""Whose the requests of a job with one model are."""

_TAKES_ALL = ("vllm", "sglang")
"""Owners of listed models whose servers take every field that a job may send."""
_MOST_CHANGES = 12
_LONGEST_S = 20.0
"""What is refused is so at once: an answer that takes longer was begun, and so the request taken."""
_RETRIES = 2
_QUESTION = [{"role": "user", "content": "Say OK."}]
_REFUSALS = ("http_400", "http_422")
_NO_SUCH_PATH = ("http_404", "http_405")
_NO_MODEL = re.compile(
    r"(?i)\b(no|unknown|invalid) model|model\b.{0,200}\b(not (found|exist|available)|does not exist)"
)


class TrialRequest(NamedTuple):
    """A job's requests to running servers, but for their messages and seeds."""

    parameters: ServingParameters
    urls: tuple[str, ...]
    names: tuple[str, ...]
    """The model's name, or what else the servers may know it by."""
    fields: Mapping[str, Any]
    endpoint: EndpointConfig | None = None
    """Where the servers' key and headers come from, if that is a block."""


def find_changes(request: TrialRequest, *, begun: RequestChanges = NO_CHANGES) -> RequestChanges:
    """Send one short request to each server, and again with what it refuses renamed or left out; return the changes.

    Servers that take everything, as they list their models, are not asked, nor are those that do not answer now: the
    run itself waits for them. Raises `InputError` for a parameter that would have to be left out without
    `--drop_params`, and for a limit of tokens beyond the context; `ServingError` where no request can be answered.

    Args:
        request: What is tried.
        begun: The changes that the run was begun with: they stay where no server can be asked now.
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
    """The requests to one server."""

    def __init__(self, url: str, request: TrialRequest, client: ClientConfig, *, drop_params: bool) -> None:
        self._url = url
        # The same as the run's: see `running`, which asks servers that are no vLLM only where that is wanted.
        self._fields = {**request.fields, SEED: 0, **(REQUEST_FIELDS if request.parameters.record_tokens else {})}
        limits = {"max_retries": _RETRIES, "request_timeout_s": min(_LONGEST_S, client.request_timeout_s)}
        self._client = client.model_copy(update=limits)
        self._drop_params = drop_params

    def settle(self, changes: RequestChanges, names: tuple[str, ...], *, is_listed: bool) -> RequestChanges | None:
        """Return the changes with which the server takes a request; None where it answers nothing just now.

        Args:
            changes: What other servers of the job want.
            names: By which the model is asked for, one after the other.
            is_listed: Whether the server lists the name.
        """
        name, *others = names
        first = changes
        for _ in range(_MOST_CHANGES):
            failure = _in_thread(self._ask(name, changes))
            if failure is None:
                return changes if is_listed else changes.model_copy(update={"model": name})
            if not is_listed and others and _is_of_model(failure):
                name = others.pop(0)
                continue
            changed = self._changed(changes, failure)
            if changed is None:
                return changes if failure.final or changes != first else None
            changes = changed
        raise ServingError(f"{self._url} refuses one parameter after the other: {', '.join(changes.left_out)}")

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
        """Return the changes with one more; None where the failure says nothing of the request. Raises `InputError`."""
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
            raise InputError(f"the server takes no tools: {failure.message}: have the agent write its commands as text")
        if name in REQUEST_FIELDS:
            raise InputError(f"the server gives no tokens: {failure.message}: leave --record_tokens out")
        changed = changes.changed_for(name, failure.message)
        if changed is None:
            raise InputError(f"--{name} {fields[name]}: {failure.message}: give another value")
        if name in changed.of_sampling and not self._drop_params:
            raise InputError(
                f"the server refuses {name} {fields[name]}: {failure.message}: give another --{name}, or --drop_params "
                "to leave it out and have the server decide"
            )
        return changed

    def _address_advice(self, failure: RequestFailedError) -> str:
        """Return what to try where a server knows no such path: not every one has `/v1`, which is added by itself."""
        if failure.type not in _NO_SUCH_PATH or _is_of_model(failure, by_status=False):
            return ""
        whole = api_url(self._url.removesuffix("/v1"), CHAT_PATH)
        return f" (if the server has no /v1, give {whole} as --base_url)" if self._url.endswith("/v1") else ""


def _in_thread(asking: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Return what asking comes to, on a loop of its own: the caller's thread may have one, and looks for signals."""
    threads = ThreadPoolExecutor(1, thread_name_prefix="trial")
    try:
        return result_of(threads.submit(asyncio.run, asking))
    finally:
        threads.shutdown(wait=False)


def _is_of_model(failure: RequestFailedError, *, by_status: bool = True) -> bool:
    """Tell whether a server refuses a model's name: by its status too, which may be that of an unknown path."""
    if by_status and failure.type == "http_404":
        return True
    names_model = "model" in failure.named or _NO_MODEL.search(failure.message) is not None
    return names_model and failure.type in ("http_404", *_REFUSALS)
