"""Asking a server what it is, before and while it is used."""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from rollmill.errors import ServingError
from rollmill.inference.answers import PLAIN, AnswerBody, AnswerError, check_redirect
from rollmill.terminal.escapes import visible, visible_line

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AT_ONCE = 1 << 16
_LARGEST_LISTING = 16 << 20
_MOST_SHOWN = 20


class _Reading(io.RawIOBase):
    """Reads an answer until a deadline: a socket's own limit is for each piece, and a server may drip them for ever."""

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
    def __init__(self, connected: socket.socket, *given: Any, deadline: float, **named: Any) -> None:
        super().__init__(connected, *given, **named)
        self.fp = io.BufferedReader(_Reading(self.fp, connected, deadline))


class _UntilDeadline(urllib.request.AbstractHTTPHandler):
    """Makes a request's time-out that of the whole exchange."""

    def do_open(self, http_class: Callable[..., http.client.HTTPConnection], *given: Any, **named: Any) -> Any:
        def connection(host: str, /, *, timeout: float = 0.0, **more: Any) -> http.client.HTTPConnection:
            made = http_class(host, timeout=timeout, **more)
            answer: Any = partial(_Response, deadline=time.monotonic() + timeout)
            made.response_class = answer
            return made

        return super().do_open(connection, *given, **named)


class _Http(_UntilDeadline, urllib.request.HTTPHandler):
    pass


class _Https(_UntilDeadline, urllib.request.HTTPSHandler):
    pass


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an `HTTPError`: the key goes to the address that the user gave, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


# A proxy set for downloads must not come between a desk and its own server; the engine's client asks none either.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects(), _Http(), _Https())


class NotAnsweringError(ServingError):
    """Nothing answers at an address, or not as an OpenAI-compatible server does."""


def served_models(base_url: str, *, api_key: str | None = None, timeout_s: float = 10.0) -> dict[str, str]:
    """Name -> root (the weights' path or id, where the server says so) of every model at `base_url` (`.../v1`).

    Raises `NotAnsweringError`.
    """
    url = f"{base_url}/models"
    request = urllib.request.Request(url, headers=PLAIN)  # noqa: S310 - the scheme is checked by the parameters
    if api_key:
        request.add_header("Authorization", f"Bearer {api_key}")
    try:
        listing = orjson.loads(_get(request, timeout_s))
        models = {str(model["id"]): str(model.get("root") or model["id"]) for model in listing["data"]}
        return {visible(name): visible(root) for name, root in models.items()}
    except AnswerError as error:
        raise NotAnsweringError(str(error)) from error
    except urllib.error.HTTPError as error:
        error.close()  # it is the response, too
        raise NotAnsweringError(f"{url} answers {error.code} {visible(str(error.reason))[:200]}") from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NotAnsweringError(f"no server answers at {base_url}: {visible(str(reason))[:300]}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise NotAnsweringError(f"{url} is not an OpenAI-compatible list of models") from error


def _get(request: urllib.request.Request, timeout_s: float) -> bytes:
    """Return an answer's body, up to a bound. Raises `AnswerError`, and as urllib does."""
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            body = AnswerBody(request.full_url, response.headers, limit=_LARGEST_LISTING)
            while piece := response.read1(_READ_AT_ONCE):
                body.add(piece)
            return body.content()
    except urllib.error.HTTPError as error:
        check_redirect(request.full_url, error.code, error.headers.get("Location"))
        raise


def healthy(base_url: str, *, timeout_s: float = 5.0) -> bool:
    """Whether `/health`, beside `/v1`, answers 200."""
    url = base_url.removesuffix("/v1") + "/health"
    try:
        with _opener.open(url, timeout=timeout_s) as response:  # whose body is not read
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def listed(names: Iterable[str]) -> str:
    """Return the names of models that a server gave, in one line."""
    shown = [f"'{visible_line(name)[:200]}'" for name in names]
    more = f" and {len(shown) - _MOST_SHOWN:,} more" if len(shown) > _MOST_SHOWN else ""
    return ", ".join(shown[:_MOST_SHOWN]) + more


def check_model(base_url: str, names: tuple[str, ...], *, api_key: str | None = None) -> str:
    """The name, of those in `names`, under which the server knows the model.

    Raises `ServingError` naming what is served where none of them is, and `NotAnsweringError`.
    """
    models = served_models(base_url, api_key=api_key)
    for name in names:
        if name in models:
            return name
    raise ServingError(
        f"{base_url} does not serve {names[0]!r} but {listed(models) or 'nothing'}: "
        "give the served name as --model_name, or another server"
    )
