import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import ServingError
from rollmill.inference import endpoints
from rollmill.inference.endpoints import Endpoint, EndpointPool, is_congestion


def pool_of(*names):
    return EndpointPool([Endpoint(f"http://{name}/v1") for name in names])


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(endpoints.time, "monotonic", lambda: Clock.now)
    return Clock


endpoint = st.builds(
    lambda state, outstanding, rests: Endpoint(
        "http://x/v1",
        recovering=state == "recovering",
        fatal_error="gone" if state == "gone" else None,
        outstanding=outstanding,
        rests_until=time.monotonic() + rests,
    ),
    st.sampled_from(["up", "up", "recovering", "gone"]),
    st.integers(0, 5),
    st.sampled_from([-1.0, 0.0, 1000.0]),
)


@given(st.lists(endpoint, min_size=1, max_size=6))
def test_pick_takes_the_least_busy_of_the_usable(endpoints):
    usable = [e for e in endpoints if e.fatal_error is None and not e.recovering and e.rests_until <= time.monotonic()]
    picked = EndpointPool(endpoints).pick()
    if usable:
        assert picked in usable
        assert picked.outstanding == min(e.outstanding for e in usable)
    else:
        assert picked is None


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_requests_are_spread_evenly(count, steps):
    async def run():
        pool = pool_of(*"abcde"[:count])
        acquired = []
        for takes in steps:
            if takes or not acquired:
                acquired.append(await pool.acquire())
            else:
                pool.release(acquired.pop())  # the latest, which keeps the spread even
            outstanding = [e.outstanding for e in pool.endpoints]
            assert sum(outstanding) == len(acquired)
            assert max(outstanding) - min(outstanding) <= 1

    asyncio.run(run())


def test_one_that_refuses_rests_longer_every_time_and_comes_back(clock):
    pool = pool_of("a", "b")
    first, second = pool.endpoints
    rests = []
    for _ in range(7):
        first.failed(refused=True)
        rests.append(first.rests_until - clock.now)
        assert pool.pick() is second
        clock.now = first.rests_until
        assert pool.pick() is first
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    first.answered()
    first.failed(refused=True)
    assert first.rests_until == clock.now + 1


def test_simultaneous_failures_count_once(clock):
    (only,) = pool_of("a").endpoints
    for _ in range(100):
        only.failed(refused=True)
    assert only.rests_until == clock.now + 1


def test_endpoint_rests_after_three_consecutive_failures(clock):
    (only,) = pool_of("a").endpoints
    for _ in range(2):
        only.failed(refused=False)
        only.failed(refused=False)
        assert only.usable(clock.now)
        only.answered()
    for _ in range(3):
        only.failed(refused=False)
    assert only.rests_until == clock.now + 1


def test_an_answer_ends_the_rest(clock):
    (only,) = pool_of("a").endpoints
    only.failed(refused=True)
    only.answered()
    assert only.usable(clock.now)


def test_waiting_for_one_that_is_being_restarted():
    async def run():
        pool = pool_of("a", "b")
        first, second = pool.endpoints
        first.fatal_error, second.recovering = "burnt", True
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        second.recovering = False
        assert await asyncio.wait_for(waiting, 1) is second
        assert second.outstanding == 1

    asyncio.run(run())


def test_all_gone():
    async def run():
        pool = pool_of("a", "b")
        for index, endpoint in enumerate(pool.endpoints):
            endpoint.fatal_error = f"reason {index}"
        with pytest.raises(ServingError, match="http://a/v1: reason 0; http://b/v1: reason 1"):
            await pool.acquire()

    asyncio.run(run())


def test_a_pool_needs_an_endpoint():
    with pytest.raises(ValueError, match="at least one"):
        EndpointPool([])


@pytest.mark.parametrize(
    ("type_", "full"),
    [("http_429", True), ("http_529", True), ("timeout", True), ("rate_limit_error", True), ("overloaded_error", True),
     ("engine_overloaded_error", True), ("request_limit_exceeded", True), ("throttling_exception", True),
     ("resource_exhausted", True), ("http_500", False), ("http_402", False), ("server_error", False),
     ("malformed_response", False)],
)  # fmt: skip
def test_failures_of_a_server_that_has_no_room(type_, full):
    assert is_congestion(type_) is full
