import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollmill.errors import InputError, RunStoppedError, ServingError
from rollmill.inference.scripted import Script, ScriptedServer
from rollmill.problems import Prompting
from tests.generation.run_factory import opened
from tests.generation.sessions import session
from tests.waiting import wait_until


def test_several_threads_share_the_slots(tmp_path):
    with opened(tmp_path, rows=24, num_rollout=4) as run, ScriptedServer(Script(latency_s=0.05)) as server:
        problems = list(run.problems())
        with session(run, server.base_url, slots=16) as maker, ThreadPoolExecutor(6) as threads:
            tallies = list(threads.map(lambda at: maker.generate(problems[at : at + 4]), range(0, 24, 4)))
        assert [tally.done for tally in tallies] == [16] * 6
        assert server.requests == 96
        assert max(server.seeds.values()) == 1
        assert server.most_in_flight == 16
        assert run.missing() == 0
        assert maker.progress.snapshot().done == 96
    assert "rollout-session" not in {thread.name for thread in threading.enumerate()}


def test_continuing_generates_only_missing_rollouts(tmp_path):
    with opened(tmp_path, rows=3, num_rollout=3) as run, ScriptedServer(Script()) as server:
        problems = list(run.problems())
        with session(run, server.base_url) as maker:
            assert maker.generate(problems, limit=2).done == 6
            assert maker.generate(problems).done == 3
            assert maker.generate(problems).done == 0
            assert maker.generate([]).done == 0
        assert server.requests == 9


def test_engine_stop_is_raised_to_every_caller(tmp_path):
    with opened(tmp_path, rows=12, num_rollout=16) as run, ScriptedServer(Script(always="401")) as server:
        problems = list(run.problems())

        def generate(at):
            with pytest.raises(RunStoppedError, match=r"rollouts all failed, the latest with http_401: .*scripted 401"):
                maker.generate(problems[at : at + 4])

        with session(run, server.base_url) as maker, ThreadPoolExecutor(3) as threads:
            list(threads.map(generate, (0, 4, 8)))
            generate(0)
            maker.wait_for_room()
            maker.wait_for_room()
        assert 64 <= run.journal.tally.failed < 72


def test_no_server_is_left(tmp_path):
    with opened(tmp_path) as run, session(run, "http://127.0.0.1:9/v1", fatal_error="it died") as maker:
        problems = list(run.problems())
        with pytest.raises(ServingError, match=r"http://127\.0\.0\.1:9/v1: it died"):
            maker.generate(problems)


def test_a_template_that_does_not_fit(tmp_path):
    prompting = Prompting(template="{prompt} {topic}")
    with opened(tmp_path) as run, session(run, "http://127.0.0.1:9/v1", prompting=prompting) as maker:
        problems = list(run.problems())
        with pytest.raises(InputError, match="p0 has no column 'topic'"):
            maker.generate(problems)


def test_closing_the_session_stops_waiting_callers(tmp_path):
    with opened(tmp_path) as run, ScriptedServer(Script(latency_s=3600)) as server, ThreadPoolExecutor(1) as threads:
        with session(run, server.base_url) as maker:
            waiting = threads.submit(maker.generate, list(run.problems()))
            wait_until(lambda: server.in_flight == 4)
        with pytest.raises(RunStoppedError, match="the run was stopped; run the same command again to continue it"):
            waiting.result()


def test_start_failure_is_raised(tmp_path):
    with opened(tmp_path) as run, pytest.raises(ValueError, match="at least one endpoint"):
        session(run).__enter__()


def test_waiting_for_room(tmp_path):
    with opened(tmp_path, rows=9, num_rollout=8) as run, ScriptedServer(Script(latency_s=0.1)) as server:
        problems = list(run.problems())
        with session(run, server.base_url, slots=8) as maker, ThreadPoolExecutor(2) as threads:
            maker.wait_for_room()  # for the shard that comes now
            first = threads.submit(maker.generate, problems[:5])  # 40 rollouts: 8 at once, 32 wait
            maker.wait_for_room()  # until fewer than 16 wait, or 90 s of work at the rate there is by then
            assert maker.progress.snapshot().done >= 1  # the first ones that complete give the rate
            assert not first.done()
            second = threads.submit(maker.generate, problems[5:])
            assert first.result().done == 40
            assert second.result().done == 32
