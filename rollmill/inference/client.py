"""The asynchronous client for chat completions, with retries, over a pool of endpoints."""

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

# Below the 5 s after which uvicorn, and so vLLM, closes idle connections: a request must not be sent on one of those.
_KEEPALIVE_S = 4.0
_REFUSED = frozenset(("http_400", "http_413", "http_422"))
_EXCEEDED = re.compile(r"exceed\w*[ _](the )?(available |maximum )?context", re.IGNORECASE)
_LARGE_BODY = 2**20
_TOKEN_FIELDS = b"," + orjson.dumps(REQUEST_FIELDS)[1:]
_NOT_STREAMED = b',"stream":false'
_MOST_REDIRECTS = 4


class RequestFailedError(Exception):
    """A request without a completion after all retries.

    Args:
        type_: A word by which failures are counted, such as `timeout` or `http_503`.
        message: The server's message, or a description.
        calls: Requests sent, retries included.
        final: Whether the same request would fail again.
        named: Fields of the request that the server's error names.
    """

    def __init__(
        self, type_: str, message: str, calls: int, *, final: bool = False, named: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.type = type_
        self.final = final
        """Whether the same request would fail again."""
        self.named = named
        """Fields of the request that the server's error names."""
        self.message = visible(" ".join(message.split()))[:1000]
        self.calls = calls

    @property
    def too_long(self) -> bool:
        """Return whether the server's message says that the request has more tokens than the model's context."""
        if self.type == "http_500":  # llama.cpp; other servers mention contexts in unrelated internal errors
            return _EXCEEDED.search(self.message) is not None
        refused = self.type in _REFUSED or (self.final and not self.type.startswith("http_"))
        return refused and is_too_long(self.message)


class ClientConfig(BaseModel):
    """Configuration of a client."""

    model_config = ConfigDict(frozen=True)

    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = {}
    """Additional headers of every request."""
    changes: RequestChanges = NO_CHANGES
    """Changes that the servers require in the requests of jobs."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """Timeout of one attempt, from sending to the last byte of the response."""
    max_retries: int = Field(default=10, ge=0)
    token_source: TokenSource | None = None
    """Tokenizer and kind of logprobs of the servers' tokens; None to request no tokens."""


@dataclass
class _TryFailedError(Exception):
    """One failed attempt. `final`: no further attempt can succeed."""

    type: str
    message: str
    final: bool = False
    named: tuple[str, ...] = ()
    refused: bool = False
    retry_after_s: float | None = None
    reached: bool = True
    """Whether the server answered properly: then the failure does not count against its health."""


class ChatClient:
    """Sends chat completion requests; open it with `async with`.

    Retried at most `max_retries` times: transport errors, timeouts, 408, 409, 425, 429, 5xx, and responses that are not
    a chat completion. Failing at once, with the server's message: responses larger than `LARGEST_ANSWER` bytes,
    redirects to another host, and what the same request would get again (any other 4xx, an empty account, a prompt that
    is too long), also where a server reports it in a response with status 200.
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
        """Attempts that failed and were repeated, by type of failure."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S)
        # No automatic decompression: aiohttp's would inflate 1.2 MB to 2.6 GB before any limit could apply.
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
            log.warning("requests that failed and were sent again: %s", counts)
        if self._without_tokens:
            log.warning("%d answers came without token ids, which were requested", self._without_tokens)

    @property
    def endpoints(self) -> EndpointPool:
        """Return the pool of servers."""
        return self._endpoints

    async def complete(self, body: bytes, conversation: RoutedConversation | None = None) -> Completion:
        """Send one JSON request body and return the completion; all turns of a conversation go to one server.

        Raises `RequestFailedError`, and `ServingError` when no endpoint is left.
        """
        calls = 0
        # Spliced in before the closing brace: bodies with images are large, and parsing them would cost more.
        body = body[:-1] + _NOT_STREAMED + (_TOKEN_FIELDS if self._token_source else b"}")
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
                if self._token_source is not None and completion.tokens is None:
                    self._without_tokens += 1
                return completion._replace(latency_s=time.monotonic() - started, calls=calls)
            except _TryFailedError as caught:
                failure = caught
            finally:
                self._endpoints.release(endpoint, conversation)
            if is_congestion(failure.type):
                self._endpoints.congested += 1
            if failure.reached:
                endpoint.answered()
            else:
                endpoint.failed(refused=failure.refused)
            if failure.final or calls > self._max_retries:
                raise RequestFailedError(failure.type, failure.message, calls, final=failure.final, named=failure.named)
            self.retries[failure.type] += 1
            pause_s = self._retry_pause_s(failure, calls - 1)
            with TimedStep(pause_s):
                await asyncio.sleep(pause_s)

    def _retry_pause_s(self, failure: _TryFailedError, retry: int) -> float:
        if failure.retry_after_s is not None:
            return failure.retry_after_s + random.uniform(0.0, 0.25)  # spread, so that not all come back at once
        if failure.refused and self._endpoints.pick() is not None:
            return 0.0  # another server is available now
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
        """Return status, headers and body of a response, following redirects on the same host that keep the method.

        Raises `AnswerError`, and as aiohttp does.
        """
        for _ in range(_MOST_REDIRECTS):
            # aiohttp sends large bytes in one piece, with a warning; file objects are sent in chunks.
            data = body if len(body) <= _LARGE_BODY else io.BytesIO(body)
            async with self._session.post(URL(url, encoded=True), data=data, allow_redirects=False) as response:
                location = response.headers.get("Location")
                target = same_host_redirect(url, response.status, location)
                if target is None:
                    check_redirect(url, response.status, location, suffix=CHAT_PATH)
                    return response.status, response.headers, await _read_body(url, response)
            url = target
        raise AnswerError("redirect", f"{url} redirects more than {_MOST_REDIRECTS} times: give the final address")

    def _hide(self, message: str) -> str:
        """Return a server's message with secrets masked: some servers repeat a key that they refuse."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message


async def _read_body(url: str, response: aiohttp.ClientResponse) -> bytes:
    """Return a response's body. For an error status, a body that cannot be read is replaced by the reason for that.

    The status then still decides whether the request is retried.
    """
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
    """Return the charset of a `Content-Type` header; empty where it has none."""
    _, _, charset = (content_type or "").lower().partition("charset=")
    return charset.split(";")[0].strip(" \"'")[:40]
