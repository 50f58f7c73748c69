"""Episodes on several servers: all turns of an episode on one server, and equally many episodes on each."""

from contextlib import ExitStack

import orjson

from rollmill.generation.worker_session import end_session_if_idle
from rollmill.inference.scripted import Script, ScriptedServer
from tests.jobs.episodes.test_job import job_of, scripted, shard_of


def test_all_turns_of_an_episode_go_to_one_server(tmp_path):
    with ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer(Script(completion="1", latency_s=0.002))) for _ in range(3)]
        urls = [server.base_url for server in servers]
        job = job_of(model_path="scripted", base_url=urls, total_rollouts=60, concurrency=12, output_dir=str(tmp_path))
        with shard_of(job) as shard:
            result = job.make_shard(shard, scripted, caller="test").completed
        end_session_if_idle()
    seeds = [[turn["seed"] for turn in orjson.loads(rollout.line)["turns"]] for rollout in result]
    assert len(seeds) == 60
    assert sum(map(len, seeds)) > 120
    for episode in seeds:
        assert any(all(seed in server.seeds for seed in episode) for server in servers)
    assert max(server.requests for server in servers) < 0.6 * sum(map(len, seeds))
