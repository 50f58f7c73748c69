"""The one HTTP client: chat completions with retries, over a pool of endpoints."""

from __future__ import annotations

import asyncio
import io
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

from rollmill.inference.answer_body import PLAIN, AnswerBody, AnswerError, check_redirect, same_host_redirect
from rollmill.inference.answers import Completion, read_completion
from rollmill.inference.backoff import backoff_s, parse_retry_after
from rollmill.inference.endpoints import CHAT_PATH, Endpoint, EndpointPool, RoutedConversation, is_congestion
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.sampled_tokens import REQUEST_FIELDS, TokenSource
from rollmill.inference.server_errors import FailedAnswerError, is_too_long, read_error
from rollmill.terminal.escapes import visible
from rollmill.terminal.stall_watch import TimedStep

log = logging.getLogger(__name__)

# Below the 5 s after which uvicorn, and so vLLM, drops an idle connection: a request must not meet a closing one.
_KEEPALIVE_S = 4.0
_REFUSED = frozenset(("http_400", "http_413", "http_422"))
_EXCEEDED = re.compile(r"exceed\w*[ _](the )?(available |maximum )?context", re.IGNORECASE)
_LARGE_BODY = 2**20
_ASKING_FOR_TOKENS = b"," + orjson.dumps(REQUEST_FIELDS)[1:]
_NOT_STREAMED = b',"stream":false'
_MOST_REDIRECTS = 4


class RequestFailedError(Exception):
    """A request that got no completion after all its tries. `type` is a word to count by."""

    def __init__(
        self, type_: str, message: str, calls: int, *, final: bool = False, named: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.type = type_
        self.final = final
        """The same request would fail again."""
        self.named = named
        """Fields of the request that the server names."""
        self.message = visible(" ".join(message.split()))[:1000]
        self.calls = calls

    @property
    def too_long(self) -> bool:
        """Tell whether the request had more tokens than the model's context, by the server's own words."""
        if self.type == "http_500":  # llama.cpp's; others speak of contexts in errors of their own
            return _EXCEEDED.search(self.message) is not None
        refused = self.type in _REFUSED or (self.final and not self.type.startswith("http_"))
        return refused and is_too_long(self.message)


class ClientConfig(BaseModel):
    """How requests are sent."""

    model_config = ConfigDict(frozen=True)

    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = {}
    """Sent with every request, beside the key."""
    changes: RequestChanges = NO_CHANGES
    """What the servers want otherwise in a request than jobs write it."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """For one try, from sending to the last byte."""
    max_retries: int = Field(default=10, ge=0)
    token_source: TokenSource | None = None
    """Whose tokens answers hold; None where they are not asked for."""


@dataclass
class _TryFailedError(Exception):
    """One try failed. `final`: no other try can succeed."""

    type: str
    message: str
    final: bool = False
    named: tuple[str, ...] = ()
    refused: bool = False
    retry_after_s: float | None = None
    reached: bool = True
    """The server did its part: a failure that says nothing against sending it more."""


class ChatClient:
    """Sends chat completion requests; open it with `async with`.

    An answer has at most `LARGEST_ANSWER` bytes, packed or not, and leads to no other host: a larger one, and a
    redirect elsewhere, fail at once. Transport errors, time-outs, 408, 409, 425, 429, 5xx and answers that are not a
    chat completion are tried again, at most `max_retries` times; what the same request would meet again (any other
    4xx, an empty purse, a prompt too long, the same as an error inside a good answer) fails at once with the server's
    own words.
    """

    def __init__(self, endpoints: EndpointPool, config: ClientConfig) -> None:
        self._endpoints = endpoints
        self.request_timeout_s = config.request_timeout_s
        self._max_retries = config.max_retries
        self._timeout = aiohttp.ClientTimeout(
            total=self.request_timeout_s, sock_connect=min(30.0, self.request_timeout_s)
        )
        self._headers = {"Content-Type": "application/json", **PLAIN}
        self._key = config.api_key.get_secret_value() if config.api_key else ""
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        secrets = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._headers |= secrets
        self._secrets = [secret for secret in (self._key, *secrets.values()) if secret]
        self._changes = config.changes
        self._token_source = config.token_source
        self._without_tokens = 0
        self.retries: Counter[str] = Counter()
        """Tries that failed and were repeated, by type."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S)
        # Whoever unpacks while it reads has 2.6 GB of 1.2 MB before it can count them.
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers=self._headers,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        if self.retries:
            counts = ", ".join(f"{kind} {count}" for kind, count in self.retries.most_common())
            log.warning("requests that failed on the way and were sent again: %s", counts)
        if self._without_tokens:
            log.warning("%d answers came without the ids of their tokens, which were asked for", self._without_tokens)

    @property
    def endpoints(self) -> EndpointPool:
        """Return where requests go."""
        return self._endpoints

    async def complete(self, body: bytes, conversation: RoutedConversation | None = None) -> Completion:
        """Return the completion for one JSON request body; all turns of a conversation go to one server.

        Raises `RequestFailedError`, and `ServingError` when no endpoint is left.
        """
        calls = 0
        body = body[:-1] + (_NOT_STREAMED + _ASKING_FOR_TOKENS if self._token_source else _NOT_STREAMED + b"}")
        if self._changes:
            body = self._changes.apply(body)
        while True:
            endpoint = await self._endpoints.acquire(conversation)
            calls += 1
            started = time.monotonic()
            try:
                with TimedStep(self.request_timeout_s):
                    completion = await self._try(endpoint, body)
                endpoint.answered()
                self._without_tokens += self._token_source is not None and completion.tokens is None
                return completion._replace(latency_s=time.monotonic() - started, calls=calls)
            except _TryFailedError as caught:
                failure = caught
            finally:
                self._endpoints.release(endpoint, conversation)
            self._endpoints.congested += is_congestion(failure.type)
            if failure.reached:
                endpoint.answered()
            else:
                endpoint.failed(refused=failure.refused)
            if failure.final or calls > self._max_retries:
                raise RequestFailedError(failure.type, failure.message, calls, final=failure.final, named=failure.named)
            self.retries[failure.type] += 1
            pause_s = self._pause_s(failure, calls - 1)
            with TimedStep(pause_s):
                await asyncio.sleep(pause_s)

    def _pause_s(self, failure: _TryFailedError, retry: int) -> float:
        if failure.retry_after_s is not None:
            return failure.retry_after_s + random.uniform(0.0, 0.25)
        if failure.refused and self._endpoints.pick() is not None:
            return 0.0  # another server can take it now
        return backoff_s(retry)

    async def _try(self, endpoint: Endpoint, body: bytes) -> Completion:
        try:
            status, headers, content = await self._exchange(endpoint.chat_url, body)
        except AnswerError as error:
            raise _TryFailedError(error.type, self._hide(str(error)), final=True) from None
        except aiohttp.ClientConnectorError as error:
            raise _TryFailedError("connection", str(error), refused=True, reached=False) from None
        except TimeoutError:
            message = f"no answer from {endpoint.base_url} within {self.request_timeout_s:g} s"
            raise _TryFailedError("timeout", message, reached=False) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _TryFailedError("connection", f"{type(error).__name__}: {error}", reached=False) from None
        is_answer = 200 <= status < 300
        try:
            if is_answer:
                return read_completion(content, self._token_source, charset=charset_of(headers.get("Content-Type")))
            raise read_error(status, content)
        except FailedAnswerError as error:
            message = self._hide(error.message)
            if not is_answer:
                message = f"{endpoint.base_url} answers {status}: {message}"
            raise _TryFailedError(
                error.type,
                message,
                final=error.final,
                named=error.named,
                reached=status < 500 or error.final,
                retry_after_s=None if is_answer else parse_retry_after(headers.get("Retry-After")),
            ) from None

    async def _exchange(self, url: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, head and body of an answer; a redirect that keeps the request is followed on the same host.

        Raises `AnswerError`, and as aiohttp does.
        """
        for _ in range(_MOST_REDIRECTS):
            # aiohttp sends large bytes in one piece, and warns of it; a file it sends piece by piece.
            data = body if len(body) <= _LARGE_BODY else io.BytesIO(body)
            async with self._session.post(URL(url, encoded=True), data=data, allow_redirects=False) as response:
                location = response.headers.get("Location")
                target = same_host_redirect(url, response.status, location)
                if target is None:
                    check_redirect(url, response.status, location, suffix=CHAT_PATH)
                    return response.status, response.headers, await _read_body(url, response)
            url = target
        raise AnswerError("redirect", f"{url} leads from one address to another: give the last one")

    def _hide(self, message: str) -> str:
        """Return a server's message without secrets: some repeat a key that they refuse."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message


async def _read_body(url: str, response: aiohttp.ClientResponse) -> bytes:
    """Return an answer's body. Of an error that cannot be read it is why: the status says whether to try again."""
    try:
        body = AnswerBody(url, response.headers)
        async for piece in response.content.iter_any():
            body.add(piece)
        return body.content()
    except AnswerError as error:
        if 200 <= response.status < 300:
            raise
        return str(error).encode()


def charset_of(content_type: str | None) -> str:
    """Return the encoding that a `Content-Type` names; empty for none."""
    _, _, charset = (content_type or "").lower().partition("charset=")
    return charset.split(";")[0].strip(" \"'")[:40]
