"""Query servers synchronously: their models, their health, the tokens of a prompt."""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from pydantic import SecretStr

from rollmill.errors import ServingError
from rollmill.inference.answer_body import PLAIN, AnswerBody, AnswerError, check_redirect, same_host_redirect
from rollmill.inference.endpoints import api_url
from rollmill.inference.json_body import NotJsonError, parse_body
from rollmill.inference.server_errors import server_message
from rollmill.records import Message
from rollmill.terminal.escapes import visible, visible_line

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AT_ONCE = 1 << 16
_LARGEST_LISTING = 16 << 20
_MOST_SHOWN = 20
_MOST_REDIRECTS = 4
_LONGEST_ERROR = 1 << 16
_NO_LISTING = (403, 404, 405, 501)
"""Statuses of servers without such a path, or for this key: OpenAI's restricted keys may complete, but not list."""


class _DeadlineReader(io.RawIOBase):
    """Reads a response until a deadline.

    A socket's timeout applies to each read, so that a server could send single bytes forever.
    """

    def __init__(self, answer: io.BufferedReader, connected: socket.socket, deadline: float) -> None:
        self._answer = answer.detach()
        self._socket = connected
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out: the answer came too slowly")
        self._socket.settimeout(left_s)
        return self._answer.readinto(buffer)

    def close(self) -> None:
        self._answer.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, connected: socket.socket, *arguments: Any, deadline: float, **named: Any) -> None:
        super().__init__(connected, *arguments, **named)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp, connected, deadline))


class _DeadlineHandler(urllib.request.AbstractHTTPHandler):
    """Applies a request's timeout to the whole exchange."""

    def do_open(self, http_class: Callable[..., http.client.HTTPConnection], *arguments: Any, **named: Any) -> Any:
        def connection(host: str, /, *, timeout: float = 0.0, **more: Any) -> http.client.HTTPConnection:
            http_connection = http_class(host, timeout=timeout, **more)
            answer: Any = partial(_Response, deadline=time.monotonic() + timeout)
            http_connection.response_class = answer
            return http_connection

        return super().do_open(connection, *arguments, **named)


class _Http(_DeadlineHandler, urllib.request.HTTPHandler):
    pass


class _Https(_DeadlineHandler, urllib.request.HTTPSHandler):
    pass


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Raises `HTTPError` for redirects, so that the key is sent only to the address that the user gave."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return None, which means that the redirect is not followed."""


# A proxy that is configured for downloads must not be used for a local server; the engine's client uses none, either.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects(), _Http(), _Https())


class NotAnsweringError(ServingError):
    """No server answers at an address, or one that is not OpenAI-compatible."""


class NoListingError(NotAnsweringError):
    """A server answers, but does not list its models: some do not."""


class ListedModel(NamedTuple):
    """A model in a server's list."""

    root: str
    """Path or id of the weights where the server reports it, otherwise the model's name."""
    owner: str
    """`owned_by`, which is `vllm` for vLLM."""
    max_model_len: int | None = None
    """Context length in tokens, prompt and completion together; None where the server does not report it."""


def served_models(
    base_url: str,
    *,
    api_key: str | None = None,
    headers: Mapping[str, SecretStr] = MappingProxyType({}),
    timeout_s: float = 10.0,
) -> dict[str, ListedModel]:
    """Return the models that a server lists, by name.

    Raises `NotAnsweringError`, and its subclass `NoListingError` where a server does not list its models.

    Args:
        base_url: Address of the server, `.../v1`.
        api_key: Sent as a bearer token; None for none.
        headers: Additional headers.
        timeout_s: Seconds for the whole exchange.
    """
    url = api_url(base_url, "/models")
    hidden = [secret for secret in (api_key, *(value.get_secret_value() for value in headers.values())) if secret]
    try:
        return _listed_models(_get(url, _head(api_key, headers), timeout_s), url)
    except AnswerError as error:
        raise NotAnsweringError(_without(hidden, str(error))) from None
    except urllib.error.HTTPError as error:
        message = _without(hidden, f"{visible(str(error.reason))[:200]}{_error_words(error)}")
        kind = NoListingError if error.code in _NO_LISTING else NotAnsweringError
        raise kind(f"{url} answers {error.code} {message}") from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NotAnsweringError(f"no server answers at {base_url}: {visible(str(reason))[:300]}") from error
    except (NotJsonError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Often a web page that a server returns for every path: only a request can show whether it completes.
        raise NoListingError(f"{url} is not an OpenAI-compatible list of models") from error


def _head(api_key: str | None, headers: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return the headers of a request: the key, and those of an endpoint block."""
    bearer = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {**PLAIN, **bearer, **{name: value.get_secret_value() for name, value in headers.items()}}


def _without(secrets: Iterable[str], message: str) -> str:
    """Return a server's message with secrets masked: some servers repeat a key that they refuse."""
    for secret in secrets:
        message = message.replace(secret, "***")
    return message


def _listed_models(content: bytes, url: str) -> dict[str, ListedModel]:
    listing = parse_body(content)
    models = listing if isinstance(listing, list) and listing else listing["data"]
    if not models:
        raise NoListingError(f"{url} is not an OpenAI-compatible list of models: it lists none")
    by_name = {str(model["id"]): model for model in models}
    return {visible(name): _listed_model(name, model) for name, model in by_name.items()}


def _listed_model(name: str, model: dict[str, Any]) -> ListedModel:
    length = model.get("max_model_len")
    return ListedModel(
        visible(str(model.get("root") or name)),
        visible(str(model.get("owned_by") or "")),
        length if type(length) is int and 0 < length < 2**40 else None,
    )


def _error_words(error: urllib.error.HTTPError) -> str:
    """Return a server's error message after a colon, or an empty text. Closes the response."""
    try:
        body = error.read(_LONGEST_ERROR)
    except (OSError, http.client.HTTPException):
        body = b""
    finally:
        error.close()
    message = visible_line(server_message(body))[:300] if body.strip() not in (b"", b"{}") else ""
    return f": {message}" if message else ""


def _get(url: str, headers: Mapping[str, str], timeout_s: float, body: bytes | None = None) -> bytes:
    """Return a response's body, of limited size. Raises `AnswerError`, and as urllib does.

    Args:
        url: Address of the request.
        headers: Headers of the request, and of redirects on the same host.
        timeout_s: Seconds for each exchange.
        body: Body to post; None for a GET request.
    """
    for _ in range(_MOST_REDIRECTS):
        request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 - checked by the parameters
        try:
            with _opener.open(request, timeout=timeout_s) as response:
                answer = AnswerBody(url, response.headers, limit=_LARGEST_LISTING)
                while piece := response.read1(_READ_AT_ONCE):
                    answer.add(piece)
                return answer.content()
        except urllib.error.HTTPError as error:
            location = error.headers.get("Location")
            target = same_host_redirect(url, error.code, location)
            if target is None:
                try:
                    check_redirect(url, error.code, location, suffix="/models")
                except AnswerError:
                    error.close()
                    raise
                raise
            error.close()
            url = target
    raise AnswerError("redirect", f"{url} redirects more than {_MOST_REDIRECTS} times: give the final address")


def count_tokens(
    base_url: str,
    model: str,
    messages: list[Message],
    *,
    api_key: str | None = None,
    headers: Mapping[str, SecretStr] = MappingProxyType({}),
) -> int | None:
    """Return the number of tokens of a prompt by vLLM's `/tokenize`; None where a server does not support that.

    Args:
        base_url: Address of the server.
        model: The model's name there.
        messages: The prompt.
        api_key: Sent as a bearer token; None for none.
        headers: Additional headers.
    """
    url = base_url.partition("?")[0].removesuffix("/v1") + "/tokenize"
    try:
        body = orjson.dumps({"model": model, "messages": messages})
        answer = parse_body(_get(url, _head(api_key, headers) | {"Content-Type": "application/json"}, 30.0, body))
    except (AnswerError, NotJsonError, RecursionError, OSError, http.client.HTTPException, TypeError):
        return None
    count = answer.get("count") if isinstance(answer, dict) else None
    return count if type(count) is int and 0 <= count < 2**40 else None


def healthy(base_url: str, *, timeout_s: float = 5.0) -> bool:
    """Return whether `/health`, next to `/v1`, answers 200."""
    url = base_url.removesuffix("/v1") + "/health"
    try:
        with _opener.open(url, timeout=timeout_s) as response:  # the body is not read: it may be endless
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def listed(names: Iterable[str]) -> str:
    """Return names of models, as received from a server, in one line."""
    shown = [f"'{visible_line(name)[:200]}'" for name in names]
    more = f" and {len(shown) - _MOST_SHOWN:,} more" if len(shown) > _MOST_SHOWN else ""
    return ", ".join(shown[:_MOST_SHOWN]) + more


def check_model(base_url: str, names: tuple[str, ...], *, api_key: str | None = None) -> str:
    """Query a server's models; return the first of `names` that it lists.

    Raises `ServingError`, naming the served models, where it lists none of them, and `NotAnsweringError`.
    """
    return known_name(base_url, names, served_models(base_url, api_key=api_key))


def known_name(base_url: str, names: tuple[str, ...], models: Mapping[str, ListedModel]) -> str:
    """Return the first of `names` that a server lists. Raises `ServingError`, naming the served models, for none.

    Args:
        base_url: Address of the server, for the message.
        names: Names that the model may have, in order of preference.
        models: The models that the server lists, by name.
    """
    for name in names:
        if name in models:
            return name
    raise ServingError(
        f"{base_url} does not serve {names[0]!r} but {listed(models) or 'nothing'}: "
        "give the served name as --model_name, or another server"
    )
