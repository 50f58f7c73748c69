from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.generation import concurrency
from rollmill.generation.concurrency import ConcurrencyController, most_at_a_time, problems_at_a_time
from tests.generation.simulated_server import SimulatedServer, Simulation, best_rate

SERVERS = {
    "as many as it begins with": {"limit": 8},
    "few": {"limit": 20, "thrash": 1.5},
    "some": {"limit": 48},
    "mild": {"limit": 100, "thrash": 1.0},
    "mild and shared": {"limit": 100, "thrash": 1.2, "shared": True},
    "slow": {"limit": 64, "latency_s": 20.0},
    "quick": {"limit": 180, "latency_s": 0.2, "jitter": 0.3},
    "jitter": {"limit": 64, "jitter": 0.5, "shared": True},
    "long tail of lengths": {"limit": 100, "tail": 1.5, "shared": True},
    "many": {"limit": 400, "jitter": 0.2},
}


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_it_ends_near_the_best_rate(server):
    make = partial(SimulatedServer, **server)
    result = Simulation(make(seed=1), ConcurrencyController()).run(150 * server["limit"])
    best = best_rate(make)
    assert result.rate(after=0.5) >= 0.9 * best
    assert result.rate() >= 0.8 * best  # the search itself costs little


@settings(max_examples=8, deadline=None)
@given(
    limit=st.integers(8, 256),
    latency_s=st.floats(0.2, 20),
    thrash=st.floats(1.0, 2.5),
    jitter=st.floats(0, 0.5),
    shared=st.booleans(),
)
def test_servers_of_many_kinds(**server):
    make = partial(SimulatedServer, **server)
    result = Simulation(make(seed=1), ConcurrencyController()).run(120 * server["limit"])
    assert result.rate(after=0.5) >= 0.87 * best_rate(make)  # with the numbers that are tried again and again


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1e6), st.integers(0, 50)), max_size=300), st.integers(1, 64))
def test_the_number_stays_within_its_bounds(rollouts, most):
    """Whatever is measured: no work, no time, nothing but refusals."""
    controller = ConcurrencyController(most=most)
    now, congested, tickets = 0.0, 0, []
    for seconds, work, refused in rollouts:
        while len(tickets) < controller.limit:
            tickets.append(controller.started(now))
        now += seconds
        congested += refused
        controller.finished(now, tickets.pop(0), work=work, congested=congested)
        controller.look(now)
        assert 1 <= controller.limit <= most
        assert 1 <= controller.best <= most


def test_the_same_measurements_give_the_same_numbers():
    first, second = (
        Simulation(SimulatedServer(40, jitter=0.3), ConcurrencyController()).run(4000).limits for _ in range(2)
    )
    assert first == second


def test_a_server_without_a_limit_is_given_the_most():
    controller = ConcurrencyController(most=300)
    Simulation(SimulatedServer(10**6, jitter=0.1), controller).run(20_000)
    assert controller.best == 300


@pytest.mark.parametrize(("before", "after"), [(100, 20), (20, 100)])
def test_it_follows_a_server_that_changes(before, after):
    server = SimulatedServer(before, jitter=0.1)
    simulation = Simulation(server, ConcurrencyController()).run(100 * before)
    assert simulation.slots.best == pytest.approx(before, rel=0.2)
    server.limit = after
    simulation.run(400 * after)
    assert simulation.slots.best == pytest.approx(after, rel=0.25)


def measure(controller, seconds_each, *, congested=lambda limit: 0, count=2000):
    """Rounds of as many rollouts as are wanted, each in so many seconds."""
    now, refused = 0.0, 0
    while count > 0:
        limit = controller.limit
        tickets = [controller.started(now) for _ in range(limit)]
        now += seconds_each(limit)
        refused += congested(limit)
        for ticket in tickets:
            controller.finished(now, ticket, work=1.0, congested=refused)
        count -= limit
    return controller.best


def test_refusals_count_although_the_rate_grows():
    """A server that answers 429 to each beyond 32: those are sent again, and cost the others."""
    result = measure(ConcurrencyController(), lambda limit: 1.0, congested=lambda limit: 4 * max(0, limit - 32))
    assert 20 <= result <= 45


def test_measurements_with_idle_slots_do_not_count():
    controller = ConcurrencyController()
    for now in range(200):
        ticket = controller.started(float(now))
        controller.starve()
        controller.finished(now + 1.0, ticket, work=1.0, congested=0)
    assert controller.limit == concurrency.START
    measure(controller, lambda limit: 1.0, count=500)
    assert controller.limit > concurrency.START


def test_rollouts_that_hang_are_noticed_before_they_end():
    controller = ConcurrencyController()
    now = 0.0
    while controller.limit < 64:
        tickets = [controller.started(now) for _ in range(controller.limit)]
        now += 1
        for ticket in tickets:
            controller.finished(now, ticket, work=1.0, congested=0)
    for _ in range(64):
        controller.started(now)
    controller.look(now + 1)
    assert controller.limit == 64
    controller.look(now + 20)
    assert controller.limit < 64


def test_files_and_memory_bound_the_number(monkeypatch):
    monkeypatch.setattr(concurrency.resource, "getrlimit", lambda _: (1024, 4096))
    assert concurrency.START <= most_at_a_time() <= 768
    monkeypatch.setattr(concurrency.resource, "getrlimit", lambda _: (64, 64))
    assert most_at_a_time() == concurrency.START


@pytest.mark.parametrize(("concurrency", "num_rollout", "problems"), [("auto", 4, "auto"), (64, 16, 4), (3, 16, 1)])
def test_problems_at_a_time(concurrency, num_rollout, problems):
    assert problems_at_a_time(concurrency, num_rollout) == problems
