import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import orjson
import pytest

from rollmill.errors import RunStoppedError, ServingError
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ProblemScheduler
from rollmill.generation.tally import Tally
from rollmill.generation.worker_session import SessionCache
from rollmill.inference.endpoints import Endpoint
from rollmill.inference.scripted import Script, ScriptedServer
from tests.generation.run_factory import opened
from tests.generation.sessions import asking, session


class Order(NamedTuple):
    directory: object
    name: str = "one"


class Openings:
    """Opens sessions on a server, and notes when."""

    def __init__(self, url, slots=4):
        self.url = url
        self.slots = slots
        self.noted = []

    @contextmanager
    def __call__(self, part, is_given_up):
        name = f"session {sum(note.startswith('opened') for note in self.noted)}"
        self.noted.append(f"opened {name}")
        progress = Progress(total=0, left=0, before=Tally())
        try:
            with RolloutSession(part, asking(self.url), slots=self.slots, progress=progress) as maker:
                yield maker
        finally:
            self.noted.append(f"ended {name}")


def shards_of(run, size):
    sharding = ProblemScheduler(run, progress_of(run))
    return list(iter(lambda: sharding.cut(size), None))


def keys(rollouts):
    return {(rollout.instance_id, rollout.sample_id) for rollout in rollouts.completed}


def without_latency(line):
    row = orjson.loads(line)
    assert row.pop("latency_s") is not None
    row.pop("run_identity", None)  # which the run's own journal alone writes
    return row


def lines(*results):
    rows = [without_latency(rollout.line) for result in results for rollout in result.completed]
    return sorted(rows, key=lambda row: (row["instance_id"], row["sample_id"]))


def test_worker_rollouts_equal_local_ones(tmp_path):
    with opened(tmp_path, rows=6, num_rollout=3) as run, ScriptedServer(Script(latency_s=0.01)) as server:
        shards = shards_of(run, 6)
        keeper, opening = SessionCache(), Openings(server.base_url)
        results = [keeper.make(Order(tmp_path), opening, shard) for shard in shards]
        assert len(shards) == 3
        assert opening.noted == ["opened session 0"]
        assert [result.ready_s is not None for result in results] == [True, False, False]
        assert not any(result.given_up for result in results)
        keeper.end()
        assert opening.noted == ["opened session 0", "ended session 0"]
        with session(run, server.base_url) as maker:
            maker.generate(list(run.problems()))
        written = [without_latency(line) for line in run.journal.path.read_bytes().splitlines()]
        assert sorted(written, key=lambda row: (row["instance_id"], row["sample_id"])) == lines(*results)
        assert [rollout.outcome.status for rollout in results[0].completed] == ["ok"] * 6


def test_shards_at_the_same_time_share_the_slots(tmp_path):
    with opened(tmp_path, rows=8, num_rollout=2) as run, ScriptedServer(Script(latency_s=0.2)) as server:
        keeper, opening = SessionCache(), Openings(server.base_url, slots=6)
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(lambda shard: keeper.make(Order(tmp_path), opening, shard), shards_of(run, 4)))
        assert [len(result.completed) for result in results] == [4] * 4
        assert server.most_in_flight == 6
        assert len(lines(*results)) == server.requests == 16
        assert opening.noted == ["opened session 0"]
        keeper.end()


def test_another_spec_waits_and_replaces_the_session(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=2) as run, ScriptedServer(Script(latency_s=0.5)) as server:
        keeper, opening = SessionCache(), Openings(server.base_url)
        part_shard, other = shards_of(run, 2)
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(keeper.make, Order(tmp_path), opening, part_shard)
            while not server.in_flight:
                time.sleep(0.01)
            second = keeper.make(Order(tmp_path, "two"), opening, other)
            assert first.done()
        assert len(lines(first.result(), second)) == 4
        assert opening.noted == ["opened session 0", "ended session 0", "opened session 1"]
        keeper.end()


def test_abandoned_shard_returns_completed_rollouts_and_ends_the_session(tmp_path):
    with opened(tmp_path, rows=4, num_rollout=4) as run:
        script = Script(latency_s=0.05, tail=None)
        with ScriptedServer(script) as server, ThreadPoolExecutor(1) as threads:
            keeper, opening, given_up = SessionCache(), Openings(server.base_url), threading.Event()
            [shard] = shards_of(run, 16)
            making = threads.submit(keeper.make, Order(tmp_path), opening, shard, is_given_up=given_up.is_set)
            while server.requests <= 4:  # the first four have been answered then
                time.sleep(0.01)
            server.script = Script(latency_s=3600)
            while server.in_flight < 4 or server.most_in_flight < 4:
                time.sleep(0.01)
            time.sleep(0.2)
            given_up.set()
            result = making.result()
        assert result.given_up
        assert 4 <= len(result.completed) < 16
        assert opening.noted == ["opened session 0", "ended session 0"]
        left = shard.without(keys(result))
        assert len(left) == 16 - len(result.completed)


def test_abandoned_shard_leaves_other_shards_unchanged(tmp_path):
    with opened(tmp_path, rows=8, num_rollout=4) as run, ScriptedServer(Script(latency_s=0.2)) as server:
        keeper, opening, given_up = SessionCache(), Openings(server.base_url), threading.Event()
        shard, other = shards_of(run, 16)
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(keeper.make, Order(tmp_path), opening, shard, is_given_up=given_up.is_set)
            while not server.in_flight:
                time.sleep(0.01)
            second = threads.submit(keeper.make, Order(tmp_path), opening, other, is_given_up=lambda: False)
            while keeper._users < 2:
                time.sleep(0.01)
            given_up.set()
            result = first.result()
            assert result.given_up
            assert len(result.completed) < 16
            assert not second.done()
            assert len(second.result().completed) == 16
        rest = keeper.make(Order(tmp_path), opening, shard.without(keys(result)))
        assert len(lines(result, rest, second.result())) == 32
        assert opening.noted == ["opened session 0"]
        keeper.end()


def test_waiting_shard_of_another_spec_can_be_abandoned(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=1) as run, ScriptedServer(Script(latency_s=600)) as server:
        keeper, opening, given_up = SessionCache(), Openings(server.base_url), threading.Event()
        shard, other = shards_of(run, 1)
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(keeper.make, Order(tmp_path), opening, shard, is_given_up=given_up.is_set)
            while not server.in_flight:
                time.sleep(0.01)
            result = keeper.make(Order(tmp_path, "two"), opening, other, is_given_up=lambda: True)
            assert (result.completed, result.given_up, result.ready_s) == ([], True, None)
            given_up.set()
            assert first.result().completed == []


def test_failure_ends_the_session_and_the_next_shard_opens_another(tmp_path):
    with opened(tmp_path, rows=12, num_rollout=16) as run, ScriptedServer(Script(always="401")) as server:
        keeper, opening = SessionCache(), Openings(server.base_url)
        first, other = shards_of(run, 96)
        with pytest.raises(RunStoppedError, match="rollouts all failed, the latest with http_401"):
            keeper.make(Order(tmp_path), opening, first, is_given_up=lambda: False)
        assert opening.noted == ["opened session 0", "ended session 0"]
        server.script = Script()
        assert len(keeper.make(Order(tmp_path), opening, other).completed) == 96
        keeper.end()


def test_unservable_model_fails_at_once_for_the_same_caller(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=1) as run, ScriptedServer(Script()) as server:
        first, other = shards_of(run, 1)
        tried = []

        @contextmanager
        def failing(part, is_given_up):
            tried.append(part)
            raise ServingError("vLLM ended", details="out of memory")
            yield

        keeper = SessionCache()
        refused = [keeper.make(Order(tmp_path), failing, shard, caller="run").refused for shard in (first, other)]
        assert len(tried) == 1
        assert [str(error) for error in refused] == ["vLLM ended"] * 2
        opening = Openings(server.base_url)
        again = keeper.make(Order(tmp_path), opening, first, caller="the run's second try")
        assert (again.refused, len(again.completed)) == (None, 1)
        keeper.end()


def test_lost_server_is_reported_with_completed_rollouts(tmp_path):
    with opened(tmp_path, rows=4, num_rollout=4) as run, ScriptedServer(Script(latency_s=0.05)) as server:
        keeper, endpoint = SessionCache(), Endpoint(server.base_url)
        opening = Openings(endpoint)
        [shard] = shards_of(run, 16)
        with ThreadPoolExecutor(1) as threads:
            making = threads.submit(keeper.make, Order(tmp_path), opening, shard)
            while server.requests <= 4:  # one of the first four has been answered then
                time.sleep(0.01)
            endpoint.fatal_error = "it was killed"
            result = making.result()
        assert str(result.refused) == f"{server.base_url}: it was killed"
        assert 1 <= len(result.completed) < 16
        assert opening.noted == ["opened session 0", "ended session 0"]


def test_a_session_without_shards_ends(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=1) as run, ScriptedServer(Script()) as server:
        keeper, opening = SessionCache(idle_s=0.2), Openings(server.base_url)
        first, other = shards_of(run, 1)
        keeper.make(Order(tmp_path), opening, first)
        while "ended session 0" not in opening.noted:
            time.sleep(0.01)
        keeper.make(Order(tmp_path), opening, other)
        assert opening.noted[-1] == "opened session 1"
        keeper.end()
