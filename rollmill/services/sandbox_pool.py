"""The sandboxes that a service holds for its clients: places, turns, ends."""

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

from rollmill.errors import RollmillError
from rollmill.sandboxes.sandbox import Execution, Sandbox, SandboxError, SandboxHost, SandboxSpec
from rollmill.services import bounds

log = logging.getLogger(__name__)

T = TypeVar("T")

Gone = Callable[[], Coroutine[Any, Any, None]]
"""What ends when the client has hung up."""

UNCLAIMED_S = 120.0
"""A sandbox whose client hung up before it was started is kept so long for the client to ask again."""
_LONGEST_SWEEP_S = 1.0
_AT_A_TIME = 8


class FullError(RollmillError):
    """No place became free in time."""


class ClientGoneError(RollmillError):
    """Nobody waits for the answer any more."""


class ReusedIdError(RollmillError):
    """A request id stands for another request already."""


@dataclass
class _Held:
    sandbox: Sandbox
    request_id: str
    for_grading: bool
    client: str | None
    ends_at: float
    expires_at: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    busy: int = 0


@dataclass
class _Start:
    content: dict[str, Any]
    """Everything that was asked for."""
    task: asyncio.Task[str] | None = None
    waiting: int = 0
    queued: bool = True


class SandboxPool:
    """At most `max_sandboxes` of a host's at a time, and `grading_sandboxes` besides for those who grade.

    A start waits for a place, first come first served, at most `queue_s`. A sandbox is closed when nothing was asked of
    it for `idle_s`, when its client hangs up in the middle of a command, and when its client was to say that it is
    alive and did not for `gone_s`. Commands of one sandbox run one after another, those of several side by side. All
    methods belong to one event loop; the host's run in threads.
    """

    def __init__(
        self,
        host: SandboxHost,
        *,
        max_sandboxes: int,
        grading_sandboxes: int,
        queue_s: float,
        idle_s: float,
        gone_s: float,
    ) -> None:
        self._host = host
        self._max = {False: max_sandboxes, True: grading_sandboxes}
        self._queue_s = queue_s
        self._idle_s = idle_s
        self._gone_s = gone_s
        self._heard: dict[str, float] = {}
        self._places = {grading: asyncio.Semaphore(most) for grading, most in self._max.items()}
        self._waiting = 0
        self._held: dict[str, _Held] = {}
        self._starts: dict[str, _Start] = {}
        # A sandbox's processes may die with the thread that started them: these stay until the end.
        self._commands = ThreadPoolExecutor(max_sandboxes + grading_sandboxes, thread_name_prefix="command")
        # Graders' are their own, and closing waits for no start: one may take minutes until an image has been pulled.
        self._starting = _threads("start")
        self._closing = _threads("close")

    def counts(self) -> dict[str, int]:
        """What there is now."""
        return {
            "sandboxes": len(self._held),
            "max_sandboxes": self._max[False],
            "grading_sandboxes": self._max[True],
            "busy": sum(held.busy > 0 for held in self._held.values()),
            "waiting": self._waiting,
        }

    @property
    def beat_s(self) -> float:
        """How often a client should say that it is alive."""
        return self._gone_s / 4

    def alive(self, client: str) -> None:
        """The client was heard of."""
        self._heard[client] = time.monotonic()

    async def start(
        self,
        spec: SandboxSpec,
        gone: Gone,
        *,
        request_id: str | None = None,
        lifetime_s: float | None = None,
        for_grading: bool = False,
        client: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the id of a new sandbox, or of the one that was started for the same `request_id`.

        `gone` ends when the client hangs up: then nobody takes the place that is waited for. `content`: what else of
        the request must be the same where its id is. Raises `FullError`, `ClientGoneError`, `ReusedIdError`, and as
        `SandboxHost.start` does.
        """
        request_id = request_id or uuid.uuid4().hex
        given = {"lifetime_s": lifetime_s, "for_grading": for_grading, "client": client}
        asked = {**spec.model_dump(), **(content or {}), **given}
        start = self._starts.setdefault(request_id, _Start(asked))
        _check_same(request_id, start.content, asked)
        if start.task is None:
            start.task = asyncio.create_task(self._start(start, spec, request_id, lifetime_s, for_grading, client))
            start.task.add_done_callback(partial(self._forget_failed, request_id, start))
        start.waiting += 1
        try:
            await _first(start.task, gone)
        finally:
            start.waiting -= 1
            if not start.waiting and start.queued and start.task.cancel():
                self._forget(request_id, start)
        if not start.task.done():
            raise ClientGoneError("the client hung up")
        if start.task.cancelled():
            raise FullError("the service is ending")
        container_id = start.task.result()
        if container_id in self._held:
            self._held[container_id].expires_at = time.monotonic() + self._idle_s
        return container_id

    async def execute(
        self,
        container_id: str,
        command: str,
        gone: Gone,
        *,
        cwd: str,
        timeout_s: float | None,
        env: Mapping[str, str],
    ) -> Execution:
        """Runs a command in a sandbox held here; raises as `Sandbox.execute` does."""
        held = self._find(container_id)
        call = partial(held.sandbox.execute, command, cwd=cwd, timeout_s=timeout_s, env=env)
        task = asyncio.create_task(self._in_turn(held, call))
        try:
            await _first(task, gone)
        finally:
            if not task.done():
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else takes it
        if not task.done():
            await self._close(held)
            raise ClientGoneError("the client hung up")
        return task.result()

    async def close(self, container_id: str) -> None:
        """Ends one, whatever runs in it, and frees its place."""
        await self._close(self._find(container_id))

    async def expire(self) -> None:
        """Closes, for ever, what has been idle or lived for too long."""
        while True:
            await asyncio.sleep(min(_LONGEST_SWEEP_S, self._idle_s / 4, self.beat_s))
            for held in list(self._held.values()):
                why = self._over(held, time.monotonic())
                if why:
                    log.warning("sandbox %s is closed: %s", held.sandbox.id, why)
                    await self._close(held)
            clients = {held.client for held in self._held.values()}
            self._heard = {client: heard for client, heard in self._heard.items() if client in clients}

    def _over(self, held: _Held, now: float) -> str | None:
        if now >= held.ends_at:
            return "its container_timeout is over"
        if held.client and now >= self._heard.get(held.client, now) + self._gone_s:
            return "its client is gone"
        return "nothing was asked of it" if not held.busy and now >= held.expires_at else None

    async def end(self) -> None:
        """Ends all sandboxes, and with them the commands that run in them; nobody waits for a place any more."""
        for start in self._starts.values():
            if start.queued and start.task:
                start.task.cancel()
        await self._call(self._closing[True], self._host.close)

    def shut_down(self) -> None:
        """Ends all sandboxes; returns when none of their commands runs. For after the event loop's end."""
        self._host.close()
        for threads in (self._commands, *self._starting.values(), *self._closing.values()):
            threads.shutdown(cancel_futures=True)
        self._host.close()  # what a thread was starting meanwhile

    async def _start(
        self,
        start: _Start,
        spec: SandboxSpec,
        request_id: str,
        lifetime_s: float | None,
        for_grading: bool,
        client: str | None,
    ) -> str:
        await self._take_place(for_grading)
        start.queued = False
        try:
            sandbox = await self._call(self._starting[for_grading], partial(self._host.start, spec))
        except BaseException:
            self._places[for_grading].release()
            raise
        if client:
            self.alive(client)
        now = time.monotonic()
        claimed_by = now + min(self._idle_s, UNCLAIMED_S)
        ends_at = now + lifetime_s if lifetime_s else float("inf")
        self._held[sandbox.id] = _Held(sandbox, request_id, for_grading, client, ends_at, claimed_by)
        return sandbox.id

    async def _take_place(self, for_grading: bool) -> None:
        if self._waiting >= bounds.WAITING_STARTS and not for_grading:
            raise FullError(f"{self._waiting} starts wait for a place already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._queue_s):
                await self._places[for_grading].acquire()
        except TimeoutError:
            raise FullError(
                f"all {self._max[for_grading]} sandboxes are taken, and none became free within {self._queue_s:g} s"
            ) from None
        finally:
            self._waiting -= 1

    async def _in_turn(self, held: _Held, call: Callable[[], Execution]) -> Execution:
        held.busy += 1
        try:
            async with held.turn:
                self._find(held.sandbox.id)
                return await self._call(self._commands, call)
        finally:
            held.busy -= 1
            held.expires_at = time.monotonic() + self._idle_s

    async def _close(self, held: _Held) -> None:
        if self._held.pop(held.sandbox.id, None) is None:
            return
        self._starts.pop(held.request_id, None)
        try:
            await self._call(self._closing[held.for_grading], held.sandbox.close)
        except Exception:  # whatever it is, the others have to be closed in their time
            log.exception("sandbox %s could not be closed", held.sandbox.id)
        finally:
            self._places[held.for_grading].release()

    def _find(self, container_id: str) -> _Held:
        held = self._held.get(container_id)
        if held is None:
            raise SandboxError(f"there is no sandbox {container_id!r} here", type_="unknown_sandbox")
        return held

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
    """Threads for graders (True) and for the others."""
    return {
        grading: ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix=f"{'grading ' * grading}{what}")
        for grading in (False, True)
    }


def _check_same(request_id: str, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    other = sorted(name for name in known.keys() | asked.keys() if known.get(name) != asked.get(name))
    if other:
        raise ReusedIdError(
            f"request_id {request_id!r} is that of a start with another {', '.join(other)}: give each request its own"
        )


async def _first(task: asyncio.Task[T], gone: Gone) -> None:
    """Returns when the task has ended, or the client is gone."""
    watching = asyncio.create_task(gone())
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
