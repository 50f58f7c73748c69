"""Starts whose clients come and go, over real sandboxes."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from rollmill.services import sandbox_pool as held_module
from rollmill.services.sandbox_pool import ClientGoneError, FullError, SandboxPool
from tests.services.running import PLAIN, marked
from tests.waiting import async_wait_until


@pytest.fixture
def host(images):
    folder = Path(tempfile.mkdtemp(prefix="rollmill-test-"))
    folder.chmod(0o711)  # sandboxes' own users go through it
    with BubblewrapHost(images, root=folder) as started:
        yield started
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@asynccontextmanager
async def holding(host, **settings):
    times = {"queue_s": 5.0, "idle_s": 60.0, "gone_s": 60.0}
    held = SandboxPool(host, **{"max_sandboxes": 2, "grading_sandboxes": 1, **times, **settings})
    expiring = asyncio.create_task(held.expire())
    yield held
    expiring.cancel()
    for sandbox in list(held._held.values()):
        await held.close(sandbox.sandbox.id)
    assert held._starts == {}
    for threads in (held._commands, *held._starting.values(), *held._closing.values()):
        threads.shutdown()


async def stays():
    await asyncio.Event().wait()


async def start_begun(held):
    """When a sandbox is being started, and is not yet."""
    await async_wait_until(lambda: any(not start.queued for start in held._starts.values()))


def test_a_start_that_nobody_claims_is_closed(host, monkeypatch):
    monkeypatch.setattr(held_module, "UNCLAIMED_S", 0.3)

    async def run():
        async with holding(host, gone_s=0.4) as held:
            with pytest.raises(ClientGoneError):
                await held.start(PLAIN, partial(start_begun, held), request_id="r")
            await async_wait_until(lambda: held.counts()["sandboxes"] == 1)
            await async_wait_until(lambda: held.counts()["sandboxes"] == 0)
            await async_wait_until(lambda: held._places[False]._value == 2)

    asyncio.run(run())


def test_a_start_that_is_claimed_late_is_the_same_and_stays(host, monkeypatch):
    monkeypatch.setattr(held_module, "UNCLAIMED_S", 1.0)

    async def run():
        async with holding(host, gone_s=0.4) as held:
            with pytest.raises(ClientGoneError):
                await held.start(PLAIN, partial(start_begun, held), request_id="r")
            await async_wait_until(lambda: held.counts()["sandboxes"] == 1)
            claimed = await held.start(PLAIN, stays, request_id="r")
            assert [claimed] == list(held._held)
            await asyncio.sleep(1.5)
            assert held.counts()["sandboxes"] == 1

    asyncio.run(run())


def test_a_start_with_two_waiters_goes_on_when_one_leaves(host):
    async def run():
        async with holding(host, max_sandboxes=1) as held:
            first = await held.start(PLAIN, stays)
            leaving = asyncio.Event()
            one = asyncio.create_task(held.start(PLAIN, leaving.wait, request_id="r"))
            other = asyncio.create_task(held.start(PLAIN, stays, request_id="r"))
            await async_wait_until(lambda: held.counts()["waiting"] == 1)
            leaving.set()
            with pytest.raises(ClientGoneError):
                await one
            assert held.counts()["waiting"] == 1
            await held.close(first)
            assert await other in held._held

    asyncio.run(run())


def test_a_start_that_failed_gives_its_place_back_and_can_be_asked_again(host):
    async def run():
        async with holding(host, max_sandboxes=1) as held:
            for _ in range(3):
                with pytest.raises(InputError, match="absent"):
                    await held.start(SandboxSpec(image="absent"), stays, request_id="r")
            assert await held.start(PLAIN, stays, request_id="r")

    asyncio.run(run())


def test_who_waits_at_the_end_is_told_to_come_again(host):
    command, living = marked()

    async def run():
        async with holding(host, max_sandboxes=1, grading_sandboxes=0) as held:
            first = await held.start(PLAIN, stays)
            waiting = [asyncio.create_task(held.start(PLAIN, stays, request_id=f"{n}")) for n in range(3)]
            await async_wait_until(lambda: held.counts()["waiting"] == 3)
            running = asyncio.create_task(held.execute(first, command, stays, cwd="", timeout_s=90, env={}))
            await async_wait_until(living)
            await held.end()
            for one in waiting:
                with pytest.raises(FullError, match="ending"):
                    await one
            with pytest.raises(SandboxError):
                await running
            assert living() == []

    asyncio.run(run())


class _Pulling:
    """A host, on which starts of one image wait until it has been pulled."""

    def __init__(self, host):
        self._host = host
        self.pulled = threading.Event()

    def start(self, spec):
        if spec.image == "pulled":
            self.pulled.wait()
            spec = PLAIN
        return self._host.start(spec)

    def close(self):
        self._host.close()


def test_closing_waits_for_no_start(host):
    """A grader's place is free again, and the service ends, however many images are pulled."""
    pulling = _Pulling(host)

    async def run():
        async with holding(pulling, max_sandboxes=20) as held:
            starts = [asyncio.create_task(held.start(SandboxSpec(image="pulled"), stays)) for _ in range(20)]
            await async_wait_until(lambda: not any(start.queued for start in held._starts.values()))
            try:
                for _ in range(2):
                    sandbox = await held.start(PLAIN, stays, for_grading=True)
                    await asyncio.wait_for(held.close(sandbox), 10)
                await asyncio.wait_for(held.end(), 10)
            finally:
                pulling.pulled.set()
                await asyncio.gather(*starts, return_exceptions=True)

    asyncio.run(run())


def test_shutting_down_ends_all_threads(host):
    async def run():
        held = SandboxPool(host, max_sandboxes=1, grading_sandboxes=1, queue_s=5, idle_s=60, gone_s=60)
        for grading in (False, True):
            await held.close(await held.start(PLAIN, stays, for_grading=grading))
        return held

    before = set(threading.enumerate())
    held = asyncio.run(run())
    assert {thread.name.rpartition("_")[0] for thread in set(threading.enumerate()) - before} == {
        "start",
        "close",
        "grading start",
        "grading close",
    }
    held.shut_down()
    assert set(threading.enumerate()) <= before


def test_places_are_neither_lost_nor_made(host, monkeypatch):
    """Starts, closes and hang-ups at every moment, and in the end as many places as in the beginning."""
    monkeypatch.setattr(held_module, "UNCLAIMED_S", 0.3)  # else two that nobody claims take both places for long

    async def client(held, number):
        for turn in range(6):
            soon = partial(asyncio.sleep, 0.012 * ((number * 7 + turn * 5) % 9))
            hangs_up = soon if (number + turn) % 2 else stays
            try:
                sandbox = await held.start(PLAIN, hangs_up, request_id=f"{number}-{turn}")
                assert held.counts()["sandboxes"] <= 2
                await held.execute(sandbox, "true", stays, cwd="", timeout_s=5, env={})
                await held.close(sandbox)
            except (ClientGoneError, SandboxError):
                continue

    async def run():
        async with holding(host, queue_s=60.0, gone_s=0.4) as held:
            await asyncio.gather(*(client(held, number) for number in range(6)))
            await async_wait_until(lambda: held.counts()["waiting"] == 0)
            await async_wait_until(lambda: held._places[False]._value + held.counts()["sandboxes"] == 2)
            for sandbox in list(held._held):
                await held.close(sandbox)
            assert held._places[False]._value == 2

    asyncio.run(run())
