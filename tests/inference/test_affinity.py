"""Requests of one group go to one server, and all servers get equally many."""

import asyncio
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.inference import endpoints
from rollmill.inference.endpoints import Endpoint, EndpointPool


def pool_of(count):
    return EndpointPool([Endpoint(f"http://{index}/v1") for index in range(count)])


def groups_of(sizes):
    return ((f"g{number}", iter([(f"g{number}", index) for index in range(size)])) for number, size in enumerate(sizes))


async def endpoint_of(pool, conversation):
    endpoint = await pool.acquire(conversation)
    pool.release(endpoint, conversation)
    return endpoint


def test_turns_stay_where_they_began():
    async def run():
        pool = pool_of(3)
        with pool.conversation("g") as conversation:
            first = await endpoint_of(pool, conversation)
            first.outstanding += 50  # far beyond what new conversations may add
            assert {await endpoint_of(pool, conversation) for _ in range(5)} == {first}

    asyncio.run(run())


def test_a_conversation_leaves_an_endpoint_that_fails_for_good():
    async def run():
        pool = pool_of(2)
        with pool.conversation("g") as conversation:
            first = await endpoint_of(pool, conversation)
            first.failed(refused=True)
            second = await endpoint_of(pool, conversation)
            assert second is not first
            first.answered()
            assert await endpoint_of(pool, conversation) is second
        assert [(each.outstanding, each.idle) for each in pool.endpoints] == [(0, 0), (0, 0)]

    asyncio.run(run())


def test_conversations_between_their_turns_count():
    async def run():
        pool = pool_of(2)
        with pool.conversation("a") as first, pool.conversation("b") as other:
            assert await endpoint_of(pool, first) is not await endpoint_of(pool, other)

    asyncio.run(run())


def test_a_group_that_is_too_much_for_one_endpoint_is_parted():
    async def run():
        pool = pool_of(2)
        counts = Counter()
        for _ in range(64):
            counts[(await pool.acquire(pool.conversation("g"))).base_url] += 1
        assert min(counts.values()) >= 20

    asyncio.run(run())


def test_a_single_group_is_shared_where_others_have_nothing_to_do():
    async def run():
        pool = pool_of(2)
        counts = Counter()
        for group, _ in pool.in_turns(groups_of([64])):
            counts[(await pool.acquire(pool.conversation(group))).base_url] += 1
        assert min(counts.values()) >= 26

    asyncio.run(run())


def test_a_group_is_not_moved_by_one_request_elsewhere():
    async def run():
        pool = pool_of(2)
        with pool.conversation("g") as conversation:
            home = await endpoint_of(pool, conversation)
        home.outstanding += 50
        with pool.conversation("g") as conversation:
            assert await endpoint_of(pool, conversation) is not home
        home.outstanding -= 50
        with pool.conversation("g") as conversation:
            assert await endpoint_of(pool, conversation) is home

    asyncio.run(run())


def test_old_groups_are_forgotten(monkeypatch):
    monkeypatch.setattr(endpoints, "_MOST_GROUPS", 3)

    async def run():
        pool = pool_of(2)
        for number in range(9):
            with pool.conversation(f"g{number}") as conversation:
                await endpoint_of(pool, conversation)
        assert list(pool._of_group) == ["g6", "g7", "g8"]

    asyncio.run(run())


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 4))
def test_all_work_is_taken_once(sizes, count):
    taken = list(pool_of(count).in_turns(groups_of(sizes)))
    assert sorted(taken) == [
        (f"g{number}", index)
        for number, size in sorted(enumerate(sizes), key=lambda e: f"g{e[0]}")
        for index in range(size)
    ]


def test_one_endpoint_gets_group_by_group_and_each_only_when_its_turn_comes():
    opened = []
    groups = ((name, iter([opened.append(name) or name] * 2)) for name in "abc")
    work = pool_of(1).in_turns(groups)
    assert [next(work), next(work), list(opened)] == ["a", "a", ["a"]]
    assert list(work) == ["b", "b", "c", "c"]


@given(
    st.integers(2, 5),
    st.integers(1, 12),
    st.lists(st.integers(0, 1000), min_size=200, max_size=400),
)
def test_groups_stay_together_and_load_is_even(count, slots_each, departures):
    """Any rollout may end next: what is taken then keeps the load even, and groups whole."""

    async def run():
        pool = pool_of(count)
        work = pool.in_turns(groups_of([16] * 400))
        running, where = [], defaultdict(Counter)
        for departure in departures:
            if len(running) == count * slots_each:
                conversation = running.pop(departure % len(running))
                pool.release(conversation.endpoint, conversation)
                conversation.leave()
            group, _ = next(work)
            conversation = pool.conversation(group)
            endpoint = await pool.acquire(conversation)
            running.append(conversation)
            where[group][endpoint.base_url] += 1
            loads = [each.load for each in pool.endpoints]
            assert sum(loads) == len(running)
            assert max(loads) - min(loads) <= 1 + slots_each
        main = sum(max(counts.values()) for counts in where.values())
        assert main >= 0.98 * len(departures)

    asyncio.run(run())


def test_work_is_counted_before_it_asks():
    """An agent that is still getting its sandbox has a place: else all would begin on one server."""
    pool = pool_of(4)
    work = pool.in_turns(groups_of([4] * 8))
    for _ in range(16):
        next(work)
    assert [each.load for each in pool.endpoints] == [4, 4, 4, 4]


@pytest.mark.parametrize("down", [0, 1])
def test_groups_of_an_endpoint_that_is_down_go_elsewhere(down):
    async def run():
        pool = pool_of(2)
        pool.endpoints[down].fatal_error = "it died"
        where = Counter()
        for group, _ in pool.in_turns(groups_of([3] * 4)):
            with pool.conversation(group) as conversation:
                where[(await endpoint_of(pool, conversation)).base_url] += 1
        assert where == {pool.endpoints[1 - down].base_url: 12}

    asyncio.run(run())
