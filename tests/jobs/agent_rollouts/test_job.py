import json
import pickle
import shlex
import shutil
import sys
import threading
from pathlib import Path

import orjson
import pytest

from benchmarks.scripted_agents import CONFIG, SUBMIT, act
from rollmill.agents.model import turn_seed
from rollmill.errors import InputError
from rollmill.generation.services import Services
from rollmill.generation.shard import ProblemShard, ShardProblem
from rollmill.generation.worker_session import end_session_if_idle, worker
from rollmill.inference.script import Conversation, Script
from rollmill.inference.scripted import ScriptedServer
from rollmill.inference.server import ServerConfig
from rollmill.jobs.agent_rollouts.job import AgentRolloutsJob
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts, GenerateMulti
from rollmill.records import Problem
from tests.services.running import in_thread, marked
from tests.waiting import wait_until

SCRIPTED = ServerConfig(python=sys.executable, module="rollmill.inference.scripted")
with_bubblewrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


def make_parameters(kind=AgentRollouts, **options):
    return kind(**{"model_path": "m", "dataset": "data.json", "output": "out/one.json", "temperature": 0.5} | options)


def job_in(folder, **options):
    images = folder / "images/p"
    images.mkdir(parents=True)
    (images / "a.py").write_text("A = 1\n")
    custom = {"dataset": "data.json", "output": "out.json", "log_dir": "logs"}
    paths = {name: str(folder / path) for name, path in custom.items()}
    return AgentRolloutsJob.of(make_parameters(**paths, config=CONFIG, model_path=str(folder), **options)).for_worker()


def shard_of(samples):
    fields = {"image_name": "p", "path_in_repo": "a.py", "benchmark_command": "cat a.py"}
    problem = Problem(instance_id="p", prompt="Make it fast.", answer=None, fields=fields)
    return ProblemShard(0, [ShardProblem(problem, [(sample, 0) for sample in range(samples)])])


def scripted() -> Services:
    return Services(server=SCRIPTED)


def test_job_for_a_worker_has_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    job = AgentRolloutsJob.of(make_parameters(GenerateMulti, model_path="model")).for_worker()
    assert pickle.loads(pickle.dumps(job)) == job
    assert type(job.parameters) is GenerateMulti
    assert job.directory == tmp_path / "out/one"
    paths = ("images", "output", "log_dir", "model_path")
    assert {name: str(Path(getattr(job.parameters, name)).relative_to(tmp_path)) for name in paths} == {
        "images": "images", "output": "out/one.json", "log_dir": "logs", "model_path": "model",
    }  # fmt: skip


def test_the_name_of_a_model_on_a_server_or_the_hub_is_not_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    running = AgentRolloutsJob.of(make_parameters(model_path="model", base_url="http://a"))
    assert running.for_worker().parameters.model_path == "model"
    assert (
        AgentRolloutsJob.of(make_parameters(model_path="org/model")).for_worker().parameters.model_path == "org/model"
    )


def test_contents_of_files_are_part_of_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.json").write_text('{"steps": [{"above": 1.5, "reward": 1.0}]}')
    job = AgentRolloutsJob.of(make_parameters(ladder="steps.json", config="mini_textbased.yaml", command_timeout=7))
    (tmp_path / "steps.json").unlink()
    assert [step.reward for step in job.ladder.steps] == [1.0]
    assert job.for_worker().settings.timeout_s == 7


@pytest.mark.parametrize("options", [{"config": "nowhere.yaml"}, {"ladder": "nowhere.json"}])
def test_missing_files_are_refused_before_anything_starts(options):
    with pytest.raises(InputError, match="nowhere"):
        AgentRolloutsJob.of(make_parameters(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_block": "b", "gpu_workers": 2}, "give --cluster_block or --gpu_workers, not both"),
        ({"gpu_workers": 2, "model_port": 8000}, "--model_port 8000: there are 2 servers with --gpu_workers"),
    ],
)
def test_contradicting_sandboxes_and_graders_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_parameters(**options)
    assert make_parameters(gpu_workers=2, model_port=8000, base_url="http://a").gpu_workers == 2


@with_bubblewrap
def test_a_worker_serves_the_model_and_has_the_sandboxes(tmp_path):
    script = json.dumps({"completion": act(SUBMIT)})
    job = job_in(tmp_path, vllm_args=f"--script {shlex.quote(script)}", concurrency=2)
    rollouts = job.make_shard(shard_of(3), scripted, caller="test")
    end_session_if_idle()
    rows = [orjson.loads(rollout.line) for rollout in rollouts.completed]
    assert sorted(row["sample_id"] for row in rows) == [0, 1, 2]
    assert {row["verdict"]["reason"] for row in rows} == {"no change"}
    assert [(row["error"], row["reward"], row["metadata"]["model"]) for row in rows] == [(None, 0.0, "out")] * 3
    [log] = (tmp_path / "logs").iterdir()
    assert log.name == f"out_vllm.{worker().replace(':', '-')}.log"


@with_bubblewrap
def test_all_turns_of_an_attempt_go_to_one_server(tmp_path):
    script = Script(model="out", conversations=[Conversation(answers=[act("true"), act("true"), act(SUBMIT)])])
    with ScriptedServer(script) as item, ScriptedServer(script) as other:
        job = job_in(tmp_path, base_url=[item.base_url, other.base_url], concurrency=4)
        rollouts = job.make_shard(shard_of(8), scripted, caller="test")
        end_session_if_idle()
    rows = [orjson.loads(rollout.line) for rollout in rollouts.completed]
    assert len(rows) == 8
    for row in rows:
        seeds = {turn_seed(row["seed"], call) for call in (1, 2, 3)}
        assert [len(seeds & set(server.seeds)) for server in (item, other)] in ([3, 0], [0, 3])
    assert min(item.requests, other.requests) >= 6  # one problem, and yet both have work


@with_bubblewrap
def test_abandoned_attempts_end_at_once(tmp_path):
    """One waits for the server to be asked again, the other for a command."""
    sleep, sleeping = marked()
    conversation = Conversation(answers=[act(sleep)])
    script = Script(model="out", faults=["503"], retry_after="600", conversations=[conversation])
    missing = threading.Event()
    with ScriptedServer(script) as server:
        job = job_in(tmp_path, base_url=server.base_url, command_timeout=900)
        result = in_thread(lambda: job.make_shard(shard_of(2), scripted, caller="test", is_given_up=missing.is_set))
        wait_until(lambda: sleeping() and server.requests >= 2, 60)
        missing.set()
        rollouts = result(60)
        again = job.make_shard(shard_of(1), scripted, caller="test", is_given_up=missing.is_set)
    assert (rollouts.completed, rollouts.given_up) == ([], True)
    assert (again.completed, again.given_up) == ([], True)
    assert not sleeping()
