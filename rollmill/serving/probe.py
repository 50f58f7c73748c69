"""Asking a server what it is, before and while it is used."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import orjson

from rollmill.errors import ServingError

# A proxy set for downloads must not come between a desk and its own server; the engine's client asks none either.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotAnsweringError(ServingError):
    """Nothing answers at an address, or not as an OpenAI-compatible server does."""


def served_models(base_url: str, *, api_key: str | None = None, timeout_s: float = 10.0) -> dict[str, str]:
    """Name -> root (the weights' path or id, where the server says so) of every model at `base_url` (`.../v1`).

    Raises `NotAnsweringError`.
    """
    request = urllib.request.Request(f"{base_url}/models")  # noqa: S310 - the scheme is checked by the parameters
    if api_key:
        request.add_header("Authorization", f"Bearer {api_key}")
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            listing = orjson.loads(response.read())
        return {str(model["id"]): str(model.get("root") or model["id"]) for model in listing["data"]}
    except urllib.error.HTTPError as error:
        error.close()  # it is the response, too
        raise NotAnsweringError(f"{base_url}/models answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NotAnsweringError(f"no server answers at {base_url}: {reason}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise NotAnsweringError(f"{base_url}/models is not an OpenAI-compatible list of models") from error


def healthy(base_url: str, *, timeout_s: float = 5.0) -> bool:
    """Whether `/health`, beside `/v1`, answers 200."""
    url = base_url.removesuffix("/v1") + "/health"
    try:
        with _opener.open(url, timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def check_model(base_url: str, names: tuple[str, ...], *, api_key: str | None = None) -> str:
    """The name, of those in `names`, under which the server knows the model.

    Raises `ServingError` naming what is served where none of them is, and `NotAnsweringError`.
    """
    models = served_models(base_url, api_key=api_key)
    for name in names:
        if name in models:
            return name
    raise ServingError(
        f"{base_url} does not serve {names[0]!r} but {', '.join(map(repr, models)) or 'nothing'}: "
        "give the served name as --model_name, or another server"
    )
