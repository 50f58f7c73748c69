"""Control of one worker process by the run that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from rollmill.errors import describe
from rollmill.terminal.stall_watch import TimedStep
from rollmill.verifiers import frames
from rollmill.verifiers.failure import CpuTimeExceededError, VerifierFailed
from rollmill.verifiers.process_sandbox import LIMITS, built_in_process

MOST_REPLY_BYTES = 1 << 28
"""Size limit of one reply; a worker that exceeds it is killed."""
START_LIMIT_S = 120.0
"""Time limit of a worker's start, including heavy imports of its verifier, in seconds."""

_LAST_REPLY_S = 0.2
_SIGNALLED = 128


class WorkerProcess(asyncio.SubprocessProtocol):
    """A worker process, in its own POSIX session, that handles one request at a time.

    `usable` is false while it is busy, and stays false once it has exceeded a limit, died, or was interrupted during a
    request; the caller must then call `end`.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.usable = False
        self._buffer = bytearray()
        self._built_in = False
        self._ended = False
        self._fault = ""
        self._reply: asyncio.Future[dict[str, Any] | None] | None = None
        self._exited: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.SubprocessTransport

    @classmethod
    async def spawn(cls, *, built_in: bool) -> WorkerProcess:
        """Start a worker. Raises `VerifierFailed` if that fails.

        A built-in verifier's process has an empty environment, and a sandbox if one is available; a user's own verifier
        has the user's environment.
        """
        try:
            with built_in_process(_hash_seed()) if built_in else _custom_process() as (command, environment, files):
                transport, worker = await asyncio.get_running_loop().subprocess_exec(
                    cls, *command, stderr=None, env=environment, pass_fds=files, start_new_session=True
                )
        except OSError as error:
            raise VerifierFailed("verifier_died", f"a worker cannot be started: {error}") from error
        worker._transport = transport
        worker._built_in = built_in
        return worker

    async def prepare(self, spec: str, arguments: dict[str, Any]) -> None:
        """Make the worker import and build its verifier before its first request. Raises `VerifierFailed`.

        `arguments` are those of `make_verifier`.
        """
        first: dict[str, Any] = {"spec": spec, "arguments": arguments, "limits": None}
        if self._built_in:
            first["limits"] = LIMITS.model_dump()
        else:
            first["path"] = _search_path()
            first["environment"] = {name: os.environ.get(name) for name in _worker_environment()}
        await self.request(frames.pack(first), START_LIMIT_S, "start")

    async def request(
        self, frame: bytes, limit_s: float, what: str = "verdict", *, cpu_s: float = 0.0
    ) -> dict[str, Any]:
        """Send a request and return the reply. Raises `VerifierFailed` if none arrives.

        Args:
            frame: The encoded request.
            limit_s: Wall-clock limit in seconds, however little CPU time the worker gets.
            what: Name of the reply, for messages.
            cpu_s: The worker's own CPU time limit in seconds; if that ends it, `CpuTimeExceededError` is raised.
        """
        self.usable = False
        self._reply = asyncio.get_running_loop().create_future()
        if self._ended:
            self._reply.set_result(None)
        else:
            cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0)).write(frame)
        with TimedStep(limit_s):
            done, _ = await asyncio.wait({self._reply}, timeout=limit_s)
        if not done:
            raise VerifierFailed("verifier_timeout", f"no {what} within {limit_s:g} s")
        reply = self._reply.result()
        if reply is None:
            # The pipe may close shortly before the exit code is known.
            await asyncio.wait({self._exited}, timeout=1)
            if self._returncode() == -signal.SIGPROF:
                raise CpuTimeExceededError(cpu_s)
            raise VerifierFailed("verifier_died", self._fault or _exit_message(self._returncode()))
        self.usable = not reply.get("last", False)
        return reply

    def kill(self) -> None:
        """Send SIGKILL to the worker and its children, without waiting."""
        self.usable = False
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), signal.SIGKILL)

    async def end(self) -> None:
        """Kill the worker and wait until it is reaped and its pipes are closed."""
        self.kill()
        try:
            await asyncio.shield(self._exited)
        finally:
            self._transport.close()
        await asyncio.shield(self._closed)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Extract replies from the stream."""
        if self._fault:
            return
        self._buffer += data
        try:
            message = frames.take(self._buffer, MOST_REPLY_BYTES)
        except ValueError as error:
            self._fault = f"the worker sent no reply: {describe(error)}"
            self._settle_ended()
            self.kill()
            return
        if message is not None:
            self._settle(message)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Record the end of the replies."""
        if fd == 1:
            self._settle_ended()

    def process_exited(self) -> None:
        """Record the end of the process; its last reply may still be in the pipe."""
        if not self._exited.done():
            self._exited.set_result(None)
        # The pipe may never be closed, if a process that the verifier left behind still has it open.
        asyncio.get_running_loop().call_later(_LAST_REPLY_S, self._settle_ended)

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the process is reaped and all pipes are closed."""
        if not self._closed.done():
            self._closed.set_result(None)

    def _returncode(self) -> int | None:
        code = self._transport.get_returncode()
        if self._built_in and code is not None and code > _SIGNALLED:
            return _SIGNALLED - code  # bubblewrap exits with 128 + n if signal n ended the process in it
        return code

    def _settle_ended(self) -> None:
        self._ended = True
        self.usable = False
        self._settle(None)

    def _settle(self, reply: dict[str, Any] | None) -> None:
        if self._reply and not self._reply.done():
            self._reply.set_result(reply)


def _search_path() -> list[str]:
    return [str(Path(folder).absolute()) for folder in sys.path]  # "" there is the current directory


@contextmanager
def _custom_process() -> Iterator[tuple[list[str], dict[str, str], list[int]]]:
    """Yield the command of a user's own verifier's process, as `built_in_process` does."""
    command = [sys.executable, "-P", "-m", "rollmill.verifiers.worker", str(os.getpid())]
    yield command, {**os.environ, **_worker_environment()}, []


def _worker_environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(_search_path()), "PYTHONHASHSEED": _hash_seed()}


def _hash_seed() -> str:
    # Code that iterates over sets (sympy, some of reasoning-gym) must behave the same in every worker, and the same as
    # in this process if the user has fixed the hash seed.
    seed = os.environ.get("PYTHONHASHSEED", "")
    return seed if seed.isdecimal() else "0"


def _exit_message(returncode: int | None) -> str:
    if returncode is None:
        return "the worker closed its pipe"
    if returncode >= 0:
        return f"the worker left with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"the worker was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
