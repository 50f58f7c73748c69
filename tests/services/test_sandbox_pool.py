"""Starts whose clients connect and disconnect, over real sandboxes."""

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
from rollmill.services import sandbox_pool as pool_module
from rollmill.services.sandbox_pool import ClientDisconnectedError, FullError, SandboxPool
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
async def opened_pool(host, **settings):
    times = {"queue_s": 5.0, "idle_s": 60.0, "heartbeat_timeout_s": 60.0}
    pool = SandboxPool(host, **{"max_sandboxes": 2, "grading_sandboxes": 1, **times, **settings})
    expiring = asyncio.create_task(pool.expire())
    yield pool
    expiring.cancel()
    for sandbox in list(pool._sandboxes.values()):
        await pool.close(sandbox.sandbox.id)
    assert pool._starts == {}
    for threads in (pool._commands, *pool._starting.values(), *pool._closing.values()):
        threads.shutdown()


async def stays():
    await asyncio.Event().wait()


async def start_begun(pool):
    """Wait until a sandbox is being started."""
    await async_wait_until(lambda: any(not start.queued for start in pool._starts.values()))


def test_unclaimed_start_is_closed(host, monkeypatch):
    monkeypatch.setattr(pool_module, "UNCLAIMED_S", 0.3)

    async def run():
        async with opened_pool(host, heartbeat_timeout_s=0.4) as pool:
            with pytest.raises(ClientDisconnectedError):
                await pool.start(PLAIN, partial(start_begun, pool), request_id="r")
            await async_wait_until(lambda: pool.counts()["sandboxes"] == 1)
            await async_wait_until(lambda: pool.counts()["sandboxes"] == 0)
            await async_wait_until(lambda: pool._capacity[False]._value == 2)

    asyncio.run(run())


def test_late_claim_gets_the_same_sandbox_and_keeps_it(host, monkeypatch):
    monkeypatch.setattr(pool_module, "UNCLAIMED_S", 1.0)

    async def run():
        async with opened_pool(host, heartbeat_timeout_s=0.4) as pool:
            with pytest.raises(ClientDisconnectedError):
                await pool.start(PLAIN, partial(start_begun, pool), request_id="r")
            await async_wait_until(lambda: pool.counts()["sandboxes"] == 1)
            claimed = await pool.start(PLAIN, stays, request_id="r")
            assert [claimed] == list(pool._sandboxes)
            await asyncio.sleep(1.5)
            assert pool.counts()["sandboxes"] == 1

    asyncio.run(run())


def test_a_start_with_two_waiters_goes_on_when_one_leaves(host):
    async def run():
        async with opened_pool(host, max_sandboxes=1) as pool:
            first = await pool.start(PLAIN, stays)
            leaving = asyncio.Event()
            item = asyncio.create_task(pool.start(PLAIN, leaving.wait, request_id="r"))
            other = asyncio.create_task(pool.start(PLAIN, stays, request_id="r"))
            await async_wait_until(lambda: pool.counts()["waiting"] == 1)
            leaving.set()
            with pytest.raises(ClientDisconnectedError):
                await item
            assert pool.counts()["waiting"] == 1
            await pool.close(first)
            assert await other in pool._sandboxes

    asyncio.run(run())


def test_failed_start_frees_its_slot_and_can_be_retried(host):
    async def run():
        async with opened_pool(host, max_sandboxes=1) as pool:
            for _ in range(3):
                with pytest.raises(InputError, match="absent"):
                    await pool.start(SandboxSpec(image="absent"), stays, request_id="r")
            assert await pool.start(PLAIN, stays, request_id="r")

    asyncio.run(run())


def test_who_waits_at_the_end_is_told_to_come_again(host):
    command, living = marked()

    async def run():
        async with opened_pool(host, max_sandboxes=1, grading_sandboxes=0) as pool:
            first = await pool.start(PLAIN, stays)
            waiting = [asyncio.create_task(pool.start(PLAIN, stays, request_id=f"{n}")) for n in range(3)]
            await async_wait_until(lambda: pool.counts()["waiting"] == 3)
            running = asyncio.create_task(pool.execute(first, command, stays, cwd="", timeout_s=90, env={}))
            await async_wait_until(living)
            await pool.end()
            for item in waiting:
                with pytest.raises(FullError, match="ending"):
                    await item
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
    """A grader's slot becomes free, and the service ends, however many images are being pulled."""
    pulling = _Pulling(host)

    async def run():
        async with opened_pool(pulling, max_sandboxes=20) as pool:
            starts = [asyncio.create_task(pool.start(SandboxSpec(image="pulled"), stays)) for _ in range(20)]
            await async_wait_until(lambda: not any(start.queued for start in pool._starts.values()))
            try:
                for _ in range(2):
                    sandbox = await pool.start(PLAIN, stays, for_grading=True)
                    await asyncio.wait_for(pool.close(sandbox), 10)
                await asyncio.wait_for(pool.end(), 10)
            finally:
                pulling.pulled.set()
                await asyncio.gather(*starts, return_exceptions=True)

    asyncio.run(run())


def test_shutting_down_ends_all_threads(host):
    async def run():
        pool = SandboxPool(host, max_sandboxes=1, grading_sandboxes=1, queue_s=5, idle_s=60, heartbeat_timeout_s=60)
        for grading in (False, True):
            await pool.close(await pool.start(PLAIN, stays, for_grading=grading))
        return pool

    before = set(threading.enumerate())
    pool = asyncio.run(run())
    assert {thread.name.rpartition("_")[0] for thread in set(threading.enumerate()) - before} == {
        "start",
        "close",
        "grading start",
        "grading close",
    }
    pool.shut_down()
    assert set(threading.enumerate()) <= before


def test_places_are_neither_lost_nor_made(host, monkeypatch):
    """Starts, closes and disconnects at every moment leave as many free slots as at the beginning."""
    monkeypatch.setattr(pool_module, "UNCLAIMED_S", 0.3)  # else two that nobody claims take both places for long

    async def client(pool, number):
        for turn in range(6):
            soon = partial(asyncio.sleep, 0.012 * ((number * 7 + turn * 5) % 9))
            hangs_up = soon if (number + turn) % 2 else stays
            try:
                sandbox = await pool.start(PLAIN, hangs_up, request_id=f"{number}-{turn}")
                assert pool.counts()["sandboxes"] <= 2
                await pool.execute(sandbox, "true", stays, cwd="", timeout_s=5, env={})
                await pool.close(sandbox)
            except (ClientDisconnectedError, SandboxError):
                continue

    async def run():
        async with opened_pool(host, queue_s=60.0, heartbeat_timeout_s=0.4) as pool:
            await asyncio.gather(*(client(pool, number) for number in range(6)))
            await async_wait_until(lambda: pool.counts()["waiting"] == 0)
            await async_wait_until(lambda: pool._capacity[False]._value + pool.counts()["sandboxes"] == 2)
            for sandbox in list(pool._sandboxes):
                await pool.close(sandbox)
            assert pool._capacity[False]._value == 2

    asyncio.run(run())


def test_cases_of_all_sandboxes_together_are_bounded(host, monkeypatch):
    monkeypatch.setattr(pool_module.bounds, "CASES_BYTES", 10)
    monkeypatch.setattr(pool_module.bounds, "ALL_CASES_BYTES", 15)

    async def run():
        async with opened_pool(host) as pool:
            one, other = [await pool.start(PLAIN, stays) for _ in range(2)]
            pool.keep_cases(one, "x" * 6, first=True)
            with pytest.raises(InputError, match="more than 10 characters"):
                pool.keep_cases(one, "x" * 6, first=False)
            pool.keep_cases(one, "x" * 10, first=True)
            with pytest.raises(FullError, match="more than 15 characters"):
                pool.keep_cases(other, "x" * 6, first=True)

    asyncio.run(run())
