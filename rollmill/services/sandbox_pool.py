"""Pool of the sandboxes of a service's clients: limits their number, queues starts, and closes expired ones."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from rollmill.errors import InputError, RollmillError
from rollmill.sandboxes.sandbox import CaseAnswers, Execution, Sandbox, SandboxError, SandboxHost, SandboxSpec
from rollmill.services import bounds

log = logging.getLogger(__name__)

T = TypeVar("T")

WaitForDisconnect = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the client has disconnected."""

UNCLAIMED_S = 120.0
"""Seconds that a sandbox whose client disconnected during the start is kept for the client's retry."""
_LONGEST_SWEEP_S = 1.0
_AT_A_TIME = 8


class FullError(RollmillError):
    """No slot became free in time."""


class ClientDisconnectedError(RollmillError):
    """The client disconnected before its answer."""


class ReusedIdError(RollmillError):
    """A request id is in use for another request."""


@dataclass
class _PooledSandbox:
    sandbox: Sandbox
    request_id: str
    for_grading: bool
    client: str | None
    ends_at: float
    expires_at: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    busy: int = 0
    cases: list[str] = field(default_factory=list)
    """Pieces of the cases that wait for `answer_cases`."""


@dataclass
class _Start:
    content: dict[str, Any]
    """All fields of the request, to compare retries with."""
    task: asyncio.Task[str] | None = None
    waiting: int = 0
    queued: bool = True


class SandboxPool:
    """Keeps at most `max_sandboxes` of a host at a time, and in addition `grading_sandboxes` for graders.

    Commands of one sandbox run one after another, those of several concurrently. All methods belong to one event loop;
    the host's run in threads. A sandbox is also closed when its client disconnects during a command.

    Args:
        host: Starts the sandboxes.
        max_sandboxes: Sandboxes at a time; a start beyond them waits, first come first served.
        grading_sandboxes: Slots reserved for grading, which agents cannot take.
        queue_s: Maximum seconds that a start waits.
        idle_s: Seconds without a command after which a sandbox is closed.
        heartbeat_timeout_s: Seconds without a heartbeat after which a client's sandboxes are closed. Only clients
            that sent an id are expected to send heartbeats; see `heartbeat_interval_s`.
    """

    def __init__(
        self,
        host: SandboxHost,
        *,
        max_sandboxes: int,
        grading_sandboxes: int,
        queue_s: float,
        idle_s: float,
        heartbeat_timeout_s: float,
    ) -> None:
        self._host = host
        self._max = {False: max_sandboxes, True: grading_sandboxes}
        self._queue_s = queue_s
        self._idle_s = idle_s
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._last_heard: dict[str, float] = {}
        self._capacity = {grading: asyncio.Semaphore(most) for grading, most in self._max.items()}
        self._waiting = 0
        self._sandboxes: dict[str, _PooledSandbox] = {}
        self._starts: dict[str, _Start] = {}
        # PR_SET_PDEATHSIG kills a sandbox's processes when the thread that started them ends: these never do.
        self._commands = ThreadPoolExecutor(max_sandboxes + grading_sandboxes, thread_name_prefix="command")
        # Separate threads for graders and for closing, since a start may block for minutes while an image is pulled.
        self._starting = _threads("start")
        self._closing = _threads("close")

    def counts(self) -> dict[str, int]:
        """Return the numbers of sandboxes, slots and waiting starts."""
        return {
            "sandboxes": len(self._sandboxes),
            "max_sandboxes": self._max[False],
            "grading_sandboxes": self._max[True],
            "busy": sum(pooled.busy > 0 for pooled in self._sandboxes.values()),
            "waiting": self._waiting,
        }

    @property
    def heartbeat_interval_s(self) -> float:
        """Seconds between a client's heartbeats: three may be lost before it counts as dead."""
        return self._heartbeat_timeout_s / 4

    def alive(self, client: str) -> None:
        """Record a client's heartbeat."""
        self._last_heard[client] = time.monotonic()

    async def start(
        self,
        spec: SandboxSpec,
        wait_for_disconnect: WaitForDisconnect,
        *,
        request_id: str | None = None,
        lifetime_s: float | None = None,
        for_grading: bool = False,
        client: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the id of a new sandbox, or of the one that was started for the same `request_id`.

        Raises `FullError`, `ClientDisconnectedError`, `ReusedIdError`, and as `SandboxHost.start` does.

        Args:
            spec: The sandbox to start.
            wait_for_disconnect: Returns when the client disconnects: then it leaves the queue.
            request_id: Idempotency key; None for a new one.
            lifetime_s: Seconds until the sandbox is closed; None for no limit.
            for_grading: Whether it takes a slot that is reserved for grading.
            client: Id of the client that sends heartbeats; None for one that sends none.
            content: More fields of the request that must be equal in a retry.
        """
        request_id = request_id or uuid.uuid4().hex
        options = {"lifetime_s": lifetime_s, "for_grading": for_grading, "client": client}
        request = {**spec.model_dump(), **(content or {}), **options}
        start = self._starts.setdefault(request_id, _Start(request))
        _check_same(request_id, start.content, request)
        if start.task is None:
            start.task = asyncio.create_task(self._start(start, spec, request_id, lifetime_s, for_grading, client))
            start.task.add_done_callback(partial(self._forget_failed, request_id, start))
        start.waiting += 1
        try:
            await _wait_unless_disconnected(start.task, wait_for_disconnect)
        finally:
            start.waiting -= 1
            # The last client that waited for it disconnected: nobody would use the sandbox. Once it has its slot it is
            # started nevertheless, since the client may retry with the same `request_id`.
            if not start.waiting and start.queued and start.task.cancel():
                self._forget(request_id, start)
        if not start.task.done():
            raise ClientDisconnectedError("the client disconnected")
        if start.task.cancelled():
            raise FullError("the service is ending")
        container_id = start.task.result()
        if container_id in self._sandboxes:  # claimed: from now on the idle time counts, not the shorter `UNCLAIMED_S`
            self._sandboxes[container_id].expires_at = time.monotonic() + self._idle_s
        return container_id

    async def execute(
        self,
        container_id: str,
        command: str,
        wait_for_disconnect: WaitForDisconnect,
        *,
        cwd: str,
        timeout_s: float | None,
        env: Mapping[str, str],
    ) -> Execution:
        """Run a command in one of the sandboxes; raises as `Sandbox.execute` does.

        Args:
            container_id: The sandbox.
            command: Text for `bash -c`.
            wait_for_disconnect: Returns when the client disconnects: then the sandbox is closed.
            cwd: Folder to run in; the work tree if empty.
            timeout_s: Time limit in seconds; None for the sandbox's default.
            env: More environment variables.
        """
        pooled = self._find(container_id)
        call = partial(pooled.sandbox.execute, command, cwd=cwd, timeout_s=timeout_s, env=env)
        return await self._run(pooled, call, wait_for_disconnect)

    def keep_cases(self, container_id: str, text: str, *, first: bool) -> None:
        """Keep a piece of the cases for `answer_cases`. Raises `InputError` for too many, `FullError`."""
        pooled = self._find(container_id)
        kept = [] if first else pooled.cases
        if sum(map(len, kept)) + len(text) > bounds.CASES_BYTES:
            raise InputError(f"the cases have more than {bounds.CASES_BYTES} characters")
        others = sum(len(piece) for other in self._sandboxes.values() if other is not pooled for piece in other.cases)
        if others + sum(map(len, kept)) + len(text) > bounds.ALL_CASES_BYTES:
            raise FullError(f"the cases of all sandboxes have more than {bounds.ALL_CASES_BYTES} characters")
        pooled.cases = [*kept, text]

    async def answer_cases(
        self,
        container_id: str,
        command: str,
        wait_for_disconnect: WaitForDisconnect,
        *,
        timeout_s: float,
        most_bytes: int,
        env: Mapping[str, str],
    ) -> CaseAnswers:
        """Have a program answer the cases that were kept, and forget them; raises as `Sandbox.answer_cases` does.

        Args:
            container_id: The sandbox.
            command: Text for `bash -c`.
            wait_for_disconnect: Returns when the client disconnects: then the sandbox is closed.
            timeout_s: Time limit in seconds.
            most_bytes: Maximum of all outputs together.
            env: More environment variables.
        """
        pooled = self._find(container_id)
        if not pooled.cases:
            raise InputError("no cases were sent: send them to /cases")
        cases, pooled.cases = "".join(pooled.cases).split("\n"), []
        limits: dict[str, Any] = {"timeout_s": timeout_s, "most_bytes": most_bytes}
        call = partial(pooled.sandbox.answer_cases, command, cases, env=env, **limits)
        return await self._run(pooled, call, wait_for_disconnect)

    async def _run(self, pooled: _PooledSandbox, call: Callable[[], T], wait_for_disconnect: WaitForDisconnect) -> T:
        """Run a call on a sandbox when its turn comes, and close the sandbox when the client disconnects."""
        task = asyncio.create_task(self._in_turn(pooled, call))
        try:
            await _wait_unless_disconnected(task, wait_for_disconnect)
        finally:
            if not task.done():
                # Mark the exception as retrieved, or asyncio logs a warning.
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if not task.done():
            await self._close(pooled)
            raise ClientDisconnectedError("the client disconnected")
        return task.result()

    async def close(self, container_id: str) -> None:
        """Close a sandbox, including running commands, and free its slot."""
        await self._close(self._find(container_id))

    async def expire(self) -> None:
        """Close idle and expired sandboxes, in an endless loop."""
        while True:
            await asyncio.sleep(min(_LONGEST_SWEEP_S, self._idle_s / 4, self.heartbeat_interval_s))
            for pooled in list(self._sandboxes.values()):
                why = self._closing_reason(pooled, time.monotonic())
                if why:
                    log.warning("sandbox %s is closed: %s", pooled.sandbox.id, why)
                    await self._close(pooled)
            clients = {pooled.client for pooled in self._sandboxes.values()}
            self._last_heard = {client: heard for client, heard in self._last_heard.items() if client in clients}

    def _closing_reason(self, pooled: _PooledSandbox, now: float) -> str | None:
        if now >= pooled.ends_at:
            return "its container_timeout is over"
        if pooled.client and now >= self._last_heard.get(pooled.client, now) + self._heartbeat_timeout_s:
            return "its client sends no heartbeats any more"
        return "it was idle" if not pooled.busy and now >= pooled.expires_at else None

    async def end(self) -> None:
        """Close all sandboxes with their running commands, and refuse the starts that wait."""
        for start in self._starts.values():
            if start.queued and start.task:
                start.task.cancel()
        await self._call(self._closing[True], self._host.close)

    def shut_down(self) -> None:
        """Close all sandboxes and wait for their commands. Call it after the event loop's end."""
        self._host.close()
        for threads in (self._commands, *self._starting.values(), *self._closing.values()):
            threads.shutdown(cancel_futures=True)
        self._host.close()  # again, for a sandbox that a thread was starting meanwhile

    async def _start(
        self,
        start: _Start,
        spec: SandboxSpec,
        request_id: str,
        lifetime_s: float | None,
        for_grading: bool,
        client: str | None,
    ) -> str:
        """Wait for a slot and start a sandbox in it; return its id.

        Args:
            start: The request, marked as not queued once it has its slot.
            spec: The sandbox to start.
            request_id: Idempotency key.
            lifetime_s: Seconds until the sandbox is closed; None for no limit.
            for_grading: Whether it takes a slot that is reserved for grading.
            client: Id of the client that sends heartbeats; None for one that sends none.
        """
        await self._take_slot(for_grading)
        start.queued = False
        try:
            sandbox = await self._call(self._starting[for_grading], partial(self._host.start, spec))
        except BaseException:
            self._capacity[for_grading].release()
            raise
        if client:
            self.alive(client)
        now = time.monotonic()
        claimed_by = now + min(self._idle_s, UNCLAIMED_S)
        ends_at = now + lifetime_s if lifetime_s else float("inf")
        self._sandboxes[sandbox.id] = _PooledSandbox(sandbox, request_id, for_grading, client, ends_at, claimed_by)
        return sandbox.id

    async def _take_slot(self, for_grading: bool) -> None:
        if self._waiting >= bounds.WAITING_STARTS and not for_grading:
            raise FullError(f"{self._waiting} starts wait for a slot already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._queue_s):
                await self._capacity[for_grading].acquire()
        except TimeoutError:
            raise FullError(
                f"all {self._max[for_grading]} sandboxes are taken, and none became free within {self._queue_s:g} s"
            ) from None
        finally:
            self._waiting -= 1

    async def _in_turn(self, pooled: _PooledSandbox, call: Callable[[], T]) -> T:
        pooled.busy += 1
        try:
            async with pooled.turn:
                # It may have been closed while this command waited for its turn.
                self._find(pooled.sandbox.id)
                return await self._call(self._commands, call)
        finally:
            pooled.busy -= 1
            pooled.expires_at = time.monotonic() + self._idle_s

    async def _close(self, pooled: _PooledSandbox) -> None:
        if self._sandboxes.pop(pooled.sandbox.id, None) is None:
            return
        self._starts.pop(pooled.request_id, None)
        try:
            await self._call(self._closing[pooled.for_grading], pooled.sandbox.close)
        except Exception:  # must not end `expire`, which closes the others
            log.exception("sandbox %s could not be closed", pooled.sandbox.id)
        finally:
            self._capacity[pooled.for_grading].release()

    def _find(self, container_id: str) -> _PooledSandbox:
        pooled = self._sandboxes.get(container_id)
        if pooled is None:
            raise SandboxError(f"there is no sandbox {container_id!r} here", type_="unknown_sandbox")
        return pooled

    def _forget_failed(self, request_id: str, start: _Start, task: asyncio.Task[str]) -> None:
        if task.cancelled() or task.exception():
            self._forget(request_id, start)

    def _forget(self, request_id: str, start: _Start) -> None:
        if self._starts.get(request_id) is start:
            del self._starts[request_id]

    @staticmethod
    async def _call(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call)


def _threads(what: str) -> dict[bool, ThreadPoolExecutor]:
    """Return thread pools by whether they are for graders."""
    return {
        grading: ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix=f"grading {what}" if grading else what)
        for grading in (False, True)
    }


def _check_same(request_id: str, known: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    other = sorted(name for name in known.keys() | request.keys() if known.get(name) != request.get(name))
    if other:
        raise ReusedIdError(
            f"request_id {request_id!r} is that of a start with another {', '.join(other)}: give each request its own"
        )


async def _wait_unless_disconnected(task: asyncio.Task[T], wait_for_disconnect: WaitForDisconnect) -> None:
    """Return when the task has ended, or the client has disconnected."""
    watching = asyncio.create_task(wait_for_disconnect())
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
