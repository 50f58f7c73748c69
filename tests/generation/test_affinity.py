"""Rollouts on several servers: those of a problem on one server, and equally many on each."""

from collections import Counter
from contextlib import ExitStack

from rollmill.inference.scripted import Script, ScriptedServer
from tests.generation.run_factory import opened
from tests.generation.sessions import session

SERVERS = 3


def test_all_rollouts_of_a_problem_go_to_one_server(tmp_path):
    script = Script(latency_s=0.005, tail=1.5, longest_s=0.1, completion="<answer>{digit}</answer>")
    with opened(tmp_path, rows=60, num_rollout=16) as run, ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer(script)) for _ in range(SERVERS)]
        with session(run, *(server.base_url for server in servers), slots=48) as maker:
            maker.generate(list(run.problems())[:8], limit=2)  # as a canary does
            maker.generate(list(run.problems()))
        assert run.missing() == 0
    prompts = sum((server.prompts for server in servers), Counter())
    assert set(prompts.values()) == {16}
    on_main_server = [max(server.prompts[prompt] for server in servers) for prompt in prompts]
    assert sum(on_main_server) >= 0.95 * prompts.total()
    assert max(server.requests for server in servers) < 1.2 * prompts.total() / SERVERS
    assert all(server.most_in_flight < 2 * 48 / SERVERS for server in servers)
