"""A scripted OpenAI-compatible server: a deterministic fake model for tests and benchmarks.

`python -m rollmill.inference.scripted --port P --served-model-name NAME` accepts vLLM's arguments, and ignores those
that it does not need, so that it can be started in vLLM's place. A response depends on the request's seed alone, or on
its messages and its seed. `GET /scripted` returns statistics of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import orjson

from rollmill.inference.script import (
    Conversation,
    Script,
    ScriptedAnswer,
    encode_message,
    render_prompt,
    scripted_logprob,
)

__all__ = ["Conversation", "Script", "ScriptedAnswer", "ScriptedServer", "main", "start_children"]


class _Connection(asyncio.Protocol):
    """The part of HTTP/1.1 that our clients use, fast enough that a benchmark measures the client."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:head_end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < head_end + 4 + length:
                return
            body = self._buffer[head_end + 4 : head_end + 4 + length]
            self._buffer = self._buffer[head_end + 4 + length :]
            self._server.handle(self._transport, head.split(b" ", 2)[1].decode(), body)


class ScriptedServer:
    """The server on a thread of this process: `with ScriptedServer(Script(...)) as server: server.base_url`."""

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self.script = script
        self.port = port
        self.connections: set[asyncio.Transport] = set()
        self.seeds: Counter[int] = Counter()
        """Number of requests by seed."""
        self.prompts: Counter[str] = Counter()
        """Number of requests by the content of their first message."""
        self.bodies: list[dict[str, Any]] = []
        """The last 16 requests."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.requests = 0
        self.latencies_s = [0.0, 0.0]
        """Sum and maximum of the answered requests' latencies."""
        self._faults = list(script.faults)

    @property
    def base_url(self) -> str:
        """Return the address, which ends in `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def listen(self) -> asyncio.Server:
        """Start listening; from then on `port` is the actual one."""
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        server = await self.listen()
        self._closing = asyncio.Event()
        ready.set()
        await self._closing.wait()
        server.close()
        for transport in list(self.connections):
            transport.abort()

    def handle(self, transport: asyncio.Transport, path: str, body: bytes) -> None:
        """Answer one request."""
        if path == "/health":
            _respond(transport, 200, b"")
        elif path == "/v1/models":
            owner = {"owned_by": self.script.owned_by} if self.script.owned_by else {}
            models = {"object": "list", "data": [{"id": self.script.model, "object": "model", **owner}]}
            _respond(transport, 200, orjson.dumps(models))
        elif path == "/scripted":
            _respond(transport, 200, orjson.dumps(self.facts()))
        elif path == "/v1/chat/completions":
            self._chat(transport, body)
        else:
            _respond(transport, 404, b'{"error": {"message": "no such path"}}')

    def facts(self) -> dict[str, Any]:
        """Return statistics of the requests so far."""
        return {
            "requests": self.requests,
            "seeds": {str(seed): count for seed, count in self.seeds.items()},
            "prompts": dict(self.prompts),
            "most_in_flight": self.most_in_flight,
            "latency_sum_s": self.latencies_s[0],
            "latency_max_s": self.latencies_s[1],
        }

    def _chat(self, transport: asyncio.Transport, body: bytes) -> None:
        self.requests += 1
        if self.script.die_after is not None and self.requests >= self.script.die_after:
            os.kill(os.getpid(), 9)
        request = orjson.loads(body)
        seed = request.get("seed") or 0
        self.seeds[seed] += 1
        self.bodies = [*self.bodies[-15:], request]
        if messages := request.get("messages"):
            self.prompts[str(messages[0].get("content"))] += 1
        fault = self._fault()
        if fault is not None:
            self._fail(transport, fault)
            return
        if request.get("model") != self.script.model:
            _respond(transport, 404, orjson.dumps({"error": {"message": f"no model {request.get('model')}"}}))
            return
        if self.script.context_tokens is not None and len(body) // 4 > self.script.context_tokens:
            message = (
                f"This model's maximum context length is {self.script.context_tokens} tokens. However, you requested "
            )
            _respond(transport, 400, orjson.dumps({"error": {"message": f"{message}{len(body) // 4} tokens."}}))
            return
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        latency = self.script.latency(seed, self.in_flight)
        answer = self.script.answer(request, seed)
        if latency:
            self._loop.call_later(latency, self._answer, transport, request, seed, answer, latency)
        else:
            self._answer(transport, request, seed, answer, latency)

    def _answer(
        self, transport: asyncio.Transport, request: dict[str, Any], seed: int, scripted: ScriptedAnswer, latency: float
    ) -> None:
        """Send the response to a request.

        Args:
            transport: Connection of the client.
            request: The request's JSON.
            seed: Of the request.
            scripted: The response.
            latency: Seconds since the request, for the statistics.
        """
        self.in_flight -= 1
        self.latencies_s = [self.latencies_s[0] + latency, max(self.latencies_s[1], latency)]
        text = scripted.content or ""
        message: dict[str, Any] = {"role": "assistant", "content": scripted.content}
        if scripted.reasoning is not None:
            message |= dict.fromkeys(scripted.reasoning_keys, scripted.reasoning)
        if scripted.tool_calls:
            message["tool_calls"] = scripted.tool_calls
        choice = {"index": 0, "message": message, "finish_reason": scripted.finish_reason}
        choice["stop_reason"] = scripted.stop_reason
        answer = {
            "object": "chat.completion",
            "id": f"chatcmpl-{seed}",
            "created": 0,
            "model": self.script.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": 16,
                "completion_tokens": len(text) // 4 + 1,
                "total_tokens": len(text) // 4 + 17,
            },
        }
        if request.get("return_token_ids"):
            answer["prompt_token_ids"] = list(render_prompt(request.get("messages") or []))
            stop_text = scripted.stop_reason if isinstance(scripted.stop_reason, str) else ""
            ended = scripted.finish_reason != "length" and not stop_text
            ids = list(encode_message(message, ended=ended) + stop_text.encode())
            choice["token_ids"] = ids
            if request.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": "", "logprob": scripted_logprob(id_)} for id_ in ids]}
        _respond(transport, 200, orjson.dumps(answer))

    def _fault(self) -> str | None:
        if time.monotonic() - self._started < self.script.failing_s:
            return "500"
        return self._faults.pop(0) if self._faults else self.script.always

    def _fail(self, transport: asyncio.Transport, fault: str) -> None:
        if fault == "reset":
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            self._loop.call_later(0.02, transport.abort)
        elif fault == "close":
            transport.close()
        elif fault == "garbage":
            _respond(transport, 200, b'{"choices": [{"message": {"content": "cut o')
        elif fault == "empty":
            _respond(transport, 200, b'{"choices": [], "usage": {}}')
        elif fault.isdigit():
            message = orjson.dumps({"error": {"message": f"scripted {fault}", "code": int(fault)}})
            retry_after = self.script.retry_after if fault in ("429", "503") else None
            _respond(transport, int(fault), message, retry_after=retry_after)
        elif fault != "hang":
            raise ValueError(f"no such fault: {fault}")


def _respond(transport: asyncio.Transport, status: int, body: bytes, *, retry_after: str | None = None) -> None:
    """Write an HTTP response, unless the client has closed the connection.

    Args:
        transport: Connection of the client.
        status: HTTP status.
        body: JSON, or empty.
        retry_after: `Retry-After` header; None for none.
    """
    if transport.is_closing():
        return
    extra = f"Retry-After: {retry_after}\r\n" if retry_after else ""
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    transport.write(head.encode() + body)


def start_children() -> list[subprocess.Popen[bytes]]:
    """Start two processes that outlive their parent unless they are ended."""
    sleep: Callable[[bool], subprocess.Popen[bytes]] = lambda alone: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", "import time; time.sleep(600)  # scripted engine"], start_new_session=alone
    )
    return [sleep(False), sleep(True)]


def main(argv: list[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--served-model-name", default="scripted")
    parser.add_argument("--script", default="{}", help="a Script as JSON")
    options, _ = parser.parse_known_args(argv)
    script = Script.model_validate({"model": options.served_model_name} | orjson.loads(options.script))
    time.sleep(script.start_s)
    if script.start_error is not None:
        sys.exit(script.start_error)
    children = start_children() if script.children else []

    async def serve() -> None:
        server = await ScriptedServer(script, port=options.port).listen()
        sys.stderr.write(f"serving on port {server.sockets[0].getsockname()[1]}\n")
        await server.serve_forever()

    try:
        asyncio.run(serve())
    finally:
        for child in children:
            child.kill()


if __name__ == "__main__":
    main()
