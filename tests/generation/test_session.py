import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollmill.errors import InputError, RunStoppedError, ServingError
from rollmill.generation.chat import ChatRollouts
from rollmill.generation.progress import progress_of
from rollmill.generation.sampling import Sampling
from rollmill.generation.session import RolloutSession
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.scripted import Script, ScriptedServer
from rollmill.problems import Prompting
from rollmill.verifiers import VerifierPool
from tests.generation.made import PLAIN, opened


def asking(*urls, prompting=PLAIN, gone=None, max_retries=0):
    endpoints = [url if isinstance(url, Endpoint) else Endpoint(url, gone=gone) for url in urls]
    return ChatRollouts(
        ChatClient(EndpointPool(endpoints), ClientConfig(max_retries=max_retries)),
        VerifierPool("numeric", accept_error=0.0),
        model="scripted",
        sampling=Sampling(max_tokens=100),
        prompting=prompting,
    )


def session(run, *urls, slots=4, **more):
    return RolloutSession(run, asking(*urls, **more), slots=slots, progress=progress_of(run))


def test_several_threads_share_the_slots(tmp_path):
    with opened(tmp_path, rows=24, num_rollout=4) as run, ScriptedServer(Script(latency_s=0.05)) as server:
        problems = list(run.problems())
        with session(run, server.base_url, slots=16) as made, ThreadPoolExecutor(6) as threads:
            started = time.monotonic()
            tallies = list(threads.map(lambda at: made.generate(problems[at : at + 4]), range(0, 24, 4)))
            elapsed = time.monotonic() - started
        assert [tally.done for tally in tallies] == [16] * 6
        assert server.requests == 96
        assert max(server.seeds.values()) == 1
        assert server.most_in_flight == 16
        assert 0.3 <= elapsed < 0.6  # 96 in 16 slots
        assert run.missing() == 0
        assert made.progress.snapshot().done == 96
    assert "rollout-session" not in {thread.name for thread in threading.enumerate()}


def test_continuing_makes_only_what_is_missing(tmp_path):
    with opened(tmp_path, rows=3, num_rollout=3) as run, ScriptedServer(Script()) as server:
        problems = list(run.problems())
        with session(run, server.base_url) as made:
            assert made.generate(problems, first=2).done == 6
            assert made.generate(problems).done == 3
            assert made.generate(problems).done == 0
            assert made.generate([]).done == 0
        assert server.requests == 9


def test_what_stops_the_engine_reaches_every_caller(tmp_path):
    with opened(tmp_path, rows=12, num_rollout=16) as run, ScriptedServer(Script(always="401")) as server:
        problems = list(run.problems())

        def generate(at):
            with pytest.raises(RunStoppedError, match=r"rollouts all failed, the latest with http_401: .*scripted 401"):
                made.generate(problems[at : at + 4])

        with session(run, server.base_url) as made, ThreadPoolExecutor(3) as threads:
            list(threads.map(generate, (0, 4, 8)))
            generate(0)
            made.wait_for_room()
            made.wait_for_room()
        assert 64 <= run.journal.tally.failed < 72


def test_no_server_is_left(tmp_path):
    with opened(tmp_path) as run, session(run, "http://127.0.0.1:9/v1", gone="it died") as made:
        problems = list(run.problems())
        with pytest.raises(ServingError, match=r"http://127\.0\.0\.1:9/v1: it died"):
            made.generate(problems)


def test_a_template_that_does_not_fit(tmp_path):
    prompting = Prompting(template="{prompt} {topic}")
    with opened(tmp_path) as run, session(run, "http://127.0.0.1:9/v1", prompting=prompting) as made:
        problems = list(run.problems())
        with pytest.raises(InputError, match="p0 has no column 'topic'"):
            made.generate(problems)


def test_leaving_stops_who_waits(tmp_path):
    with opened(tmp_path) as run, ScriptedServer(Script(latency_s=60)) as server, ThreadPoolExecutor(1) as threads:
        with session(run, server.base_url) as made:
            waiting = threads.submit(made.generate, list(run.problems()))
            while server.in_flight < 4:
                time.sleep(0.01)
            started = time.monotonic()
        with pytest.raises(RunStoppedError, match="the run was stopped; the same command continues it"):
            waiting.result()
        assert time.monotonic() - started < 2


def test_what_fails_at_the_start_is_raised(tmp_path):
    with opened(tmp_path) as run, pytest.raises(ValueError, match="at least one endpoint"):
        session(run).__enter__()


def test_waiting_for_room(tmp_path):
    with opened(tmp_path, rows=9, num_rollout=8) as run, ScriptedServer(Script(latency_s=0.1)) as server:
        problems = list(run.problems())
        with session(run, server.base_url, slots=8) as made, ThreadPoolExecutor(2) as threads:
            made.wait_for_room()  # for the shard that comes now
            started = time.monotonic()
            first = threads.submit(made.generate, problems[:5])  # 40 rollouts: 8 at once, 32 wait
            made.wait_for_room()  # until fewer than 16 wait, or 90 s of work at the rate there is by then
            assert 0.09 <= time.monotonic() - started < 0.5
            assert not first.done()
            second = threads.submit(made.generate, problems[5:])
            assert first.result().done == 40
            assert second.result().done == 32
