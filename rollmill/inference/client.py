"""The one HTTP client: chat completions with retries, over a pool of endpoints."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from rollmill.inference.answers import PLAIN, AnswerBody, AnswerError, check_redirect, words_of
from rollmill.inference.backoff import backoff_s, parse_retry_after
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.records import Usage
from rollmill.terminal.escapes import visible
from rollmill.terminal.stall_watch import TimedStep

log = logging.getLogger(__name__)

_RETRIED_STATUSES = frozenset({408, 409, 429})
# Below the 5 s after which uvicorn, and so vLLM, drops an idle connection: a request must not meet a closing one.
_KEEPALIVE_S = 4.0
_LARGE_BODY = 2**20
_MOST_TOKENS = 2**53  # what every reader of JSON keeps exactly

_Read = tuple[str, str | None, str | None, Usage, tuple["ToolCall", ...]]


class RequestFailedError(Exception):
    """A request that got no completion after all its tries. `type` is a word to count by."""

    def __init__(self, type_: str, message: str, calls: int) -> None:
        super().__init__(message)
        self.type = type_
        self.message = visible(" ".join(message.split()))[:1000]
        self.calls = calls


class ClientConfig(BaseModel):
    """How requests are sent."""

    model_config = ConfigDict(frozen=True)

    api_key: SecretStr | None = None
    request_timeout_s: float = Field(default=600.0, gt=0)
    """For one try, from sending to the last byte."""
    max_retries: int = Field(default=10, ge=0)


class ToolCall(NamedTuple):
    """A tool call as the model made it, however malformed: texts that nobody has looked at, empty where missing."""

    id: str
    name: str
    arguments: str
    """JSON, if the model got it right."""


class Completion(NamedTuple):
    """What the server made of one prompt."""

    text: str
    reasoning: str | None
    finish_reason: str | None
    usage: Usage
    latency_s: float
    """Seconds of the try that succeeded."""
    calls: int
    """Requests sent, retries included."""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass
class _TryFailedError(Exception):
    """One try failed. `final`: no other try can succeed."""

    type: str
    message: str
    final: bool = False
    refused: bool = False
    retry_after_s: float | None = None
    reached: bool = True
    """The server did its part: a failure that says nothing against sending it more."""


class ChatClient:
    """Sends chat completion requests; open it with `async with`.

    An answer has at most `LARGEST_ANSWER` bytes, packed or not, and leads nowhere else: a larger one, and a redirect,
    fail at once. Transport errors, time-outs, 408, 409, 429, 5xx and answers that are not a chat completion are tried
    again, at most `max_retries` times; any other 4xx fails at once with the server's own words.
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
            said = ", ".join(f"{kind} {count}" for kind, count in self.retries.most_common())
            log.warning("requests that failed on the way and were sent again: %s", said)

    async def complete(self, body: bytes) -> Completion:
        """The completion for one JSON request body.

        Raises `RequestFailedError`, and `ServingError` when no endpoint is left.
        """
        calls = 0
        while True:
            endpoint = await self._endpoints.acquire()
            calls += 1
            started = time.monotonic()
            try:
                with TimedStep(self.request_timeout_s):
                    text, reasoning, finish_reason, usage, tool_calls = await self._try(endpoint, body)
                endpoint.answered()
                seconds = time.monotonic() - started
                return Completion(text, reasoning, finish_reason, usage, seconds, calls, tool_calls)
            except _TryFailedError as caught:
                failure = caught
            finally:
                self._endpoints.release(endpoint)
            if failure.reached:
                endpoint.answered()
            else:
                endpoint.failed(refused=failure.refused)
            if failure.final or calls > self._max_retries:
                raise RequestFailedError(failure.type, failure.message, calls)
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

    async def _try(self, endpoint: Endpoint, body: bytes) -> _Read:
        url = f"{endpoint.base_url}/chat/completions"
        try:
            # aiohttp sends large bytes in one piece, and warns of it; a file it sends piece by piece.
            data = body if len(body) <= _LARGE_BODY else io.BytesIO(body)
            async with self._session.post(url, data=data, allow_redirects=False) as response:
                status, headers = response.status, response.headers
                check_redirect(url, status, headers.get("Location"))
                content = await _read_body(url, response)
        except AnswerError as error:
            raise _TryFailedError(error.type, str(error), final=True) from None
        except aiohttp.ClientConnectorError as error:
            raise _TryFailedError("connection", str(error), refused=True, reached=False) from None
        except TimeoutError:
            message = f"no answer from {endpoint.base_url} within {self.request_timeout_s:g} s"
            raise _TryFailedError("timeout", message, reached=False) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _TryFailedError("connection", f"{type(error).__name__}: {error}", reached=False) from None
        if status == 200:
            return read_completion(content)
        retry_after = parse_retry_after(headers.get("Retry-After"))
        retried = status in _RETRIED_STATUSES or status >= 500
        words = server_words(content)
        if self._key:
            words = words.replace(self._key, "***")  # some servers repeat a key that they refuse
        message = f"{endpoint.base_url} answers {status}: {words}"
        raise _TryFailedError(
            f"http_{status}", message, final=not retried, reached=status < 500, retry_after_s=retry_after
        )


async def _read_body(url: str, response: aiohttp.ClientResponse) -> bytes:
    """Return an answer's body. Of an error that cannot be read it is why: the status says whether to try again."""
    try:
        body = AnswerBody(url, response.headers)
        async for piece in response.content.iter_any():
            body.add(piece)
        return body.content()
    except AnswerError as error:
        if response.status == 200:
            raise
        return str(error).encode()


def read_completion(content: bytes) -> _Read:
    """Text, reasoning, finish reason, usage and tool calls of a chat completion's JSON."""
    try:
        answer = _parse(content)
        choice = answer["choices"][0]
        message = choice["message"]
        tool_calls = _tool_calls(message.get("tool_calls"))
        text = message.get("content") if tool_calls else message["content"]
        reasoning = message.get("reasoning") or message.get("reasoning_content")
        if text is None and (reasoning is not None or tool_calls):
            text = ""  # a thinking model that ran into its limit before it said anything, or one that only acts
        usage = answer.get("usage") or {}
        counted = Usage(
            prompt_tokens=usage.get("prompt_tokens") or 0, completion_tokens=usage.get("completion_tokens") or 0
        )
        if not all(0 <= count <= _MOST_TOKENS for count in (counted.prompt_tokens, counted.completion_tokens)):
            raise ValueError("usage counts no tokens that there can be")
        if not isinstance(text, str):
            raise TypeError(f"content is {type(text).__name__}")
        finish_reason = choice.get("finish_reason")
        if not isinstance(reasoning, str | None) or not isinstance(finish_reason, str | None):
            raise TypeError("reasoning or finish_reason is no text")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        shown = content[:200].decode("utf-8", "replace")
        reason = f"not a chat completion ({type(error).__name__}: {error}): {shown!r}"
        raise _TryFailedError("malformed_response", reason) from None
    return text, reasoning, finish_reason, counted, tool_calls


def _tool_calls(value: Any) -> tuple[ToolCall, ...]:
    """What the model called; of a call of a wrong shape all of it as its arguments, for the model to be told."""
    made = []
    for call in (value if isinstance(value, list) else [value]) if value else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            made.append(
                ToolCall(*(_text(one) for one in (call.get("id"), function.get("name"), function.get("arguments"))))
            )
        else:
            made.append(ToolCall("", "", _text(call)))
    return tuple(made)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()


def _parse(content: bytes) -> dict[str, Any]:
    """The JSON; lone surrogates, which a model may produce and a journal cannot hold, are replaced by `?`."""
    try:
        parsed: dict[str, Any] = orjson.loads(content)
    except orjson.JSONDecodeError:
        if b"\\u" not in content:
            raise
        parsed = orjson.loads(json.dumps(json.loads(content), ensure_ascii=False).encode("utf-8", "replace"))
    return parsed


def server_words(content: bytes) -> str:
    """The server's own message in an error body, as OpenAI, vLLM and FastAPI write it, or the body's beginning."""
    try:
        body = orjson.loads(content)
        error = body.get("error", body)
        said = error if isinstance(error, str) else error.get("message") or body.get("detail") or body.get("message")
    except (orjson.JSONDecodeError, AttributeError):
        said = None
    return words_of(said, content[:500])
