import json
import pickle
import shlex
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path

import orjson
import pytest

from benchmarks.scripted_agents import CONFIG, SUBMIT, act
from rollmill.errors import RunStoppedError
from rollmill.generation.shard import Shard, ShardProblem, ShardRun
from rollmill.generation.worker_session import SessionCache, worker
from rollmill.inference.script import Conversation, Script
from rollmill.inference.scripted import ScriptedServer
from rollmill.inference.server import ServerConfig
from rollmill.jobs.agent_rollouts.agent_session import AgentOrder, agent_session
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts, GenerateMulti
from rollmill.records import Problem
from tests.services.running import in_thread, marked
from tests.waiting import wait_until

SCRIPTED = ServerConfig(python=sys.executable, module="rollmill.inference.scripted")
with_bubblewrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


def asked(kind=AgentRollouts, **given):
    return kind(**{"model": "m", "dataset": "data.json", "output": "out/one.json", "temperature": 0.5} | given)


def order_in(folder, **given):
    images = folder / "images/p"
    images.mkdir(parents=True)
    (images / "a.py").write_text("A = 1\n")
    own = {"dataset": "data.json", "output": "out.json", "log_dir": "logs"}
    paths = {name: str(folder / path) for name, path in own.items()}
    return AgentOrder(asked(**paths, config=CONFIG, model=str(folder), **given).anywhere())


def shard_of(samples):
    fields = {"image_name": "p", "path_in_repo": "a.py", "benchmark_command": "cat a.py"}
    problem = Problem(instance_id="p", prompt="Make it fast.", answer=None, fields=fields)
    return Shard(0, [ShardProblem(problem, [(sample, 0) for sample in range(samples)])])


def opening_of(order):
    return partial(agent_session, order, server=SCRIPTED, endpoint=None, sandboxes=None, evaluations=None)


def test_what_a_worker_is_told_holds_wherever_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("mine.yaml", "mini.yaml", "steps.json", "default", "one.json"):
        (tmp_path / name).touch()
    order = AgentOrder(asked(GenerateMulti, model="model", config="mine.yaml", ladder="steps.json").anywhere())
    assert pickle.loads(pickle.dumps(order)) == order
    assert type(order.parameters) is GenerateMulti
    told = order.parameters.model_dump(exclude_unset=True)
    assert told.pop("temperature") == 0.5
    assert {name: str(Path(path).relative_to(tmp_path)) for name, path in told.items()} == {
        "dataset": "data.json", "images": "images", "output": "out/one.json", "log_dir": "logs", "model": "model",
        "config": "mine.yaml", "ladder": "steps.json",
    }  # fmt: skip
    assert order.directory == tmp_path / "out/one"
    there = asked(model="model", base_url="http://a", instance="p1", config="mini_textbased.yaml").anywhere()
    assert (there.model, there.config) == ("model", "mini_textbased.yaml")  # a server's name; one that is packaged
    assert (there.ladder, there.instance, asked(model="org/model").anywhere().model) == ("default", "p1", "org/model")
    alone = asked(dataset=None, instance="one.json").anywhere()
    assert (alone.dataset, alone.instance, alone.image_folder) == (
        None,
        str(tmp_path / "one.json"),
        tmp_path / "images",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cluster_block": "b", "gpu_workers": 2}, "give --cluster_block or --gpu_workers, not both"),
        ({"gpu_workers": 2, "model_port": 8000}, "--model_port 8000: there are 2 servers with --gpu_workers"),
    ],
)
def test_places_that_exclude_each_other(given, said):
    with pytest.raises(ValueError, match=said):
        asked(**given)
    assert asked(gpu_workers=2, model_port=8000, base_url="http://a").gpu_workers == 2


@with_bubblewrap
def test_a_worker_serves_the_model_and_has_the_sandboxes(tmp_path):
    script = json.dumps({"completion": act(SUBMIT)})
    order = order_in(tmp_path, vllm_args=f"--script {shlex.quote(script)}", workers=2)
    keeper = SessionCache()
    given = keeper.make(order, opening_of(order), shard_of(3))
    keeper.end()
    rows = [orjson.loads(one.line) for one in given.made]
    assert sorted(row["sample_id"] for row in rows) == [0, 1, 2]
    assert {row["verdict"]["reason"] for row in rows} == {"no change"}
    assert [(row["error"], row["reward"], row["metadata"]["model"]) for row in rows] == [(None, 0.0, "out")] * 3
    [log] = (tmp_path / "logs").iterdir()
    assert log.name == f"out_vllm.{worker().replace(':', '-')}.log"


@with_bubblewrap
def test_attempts_that_nobody_wants_any_more_end_at_once(tmp_path):
    """One waits for the server to be asked again, the other for a command."""
    sleep, sleeping = marked()
    conversation = Conversation(answers=[act(sleep)])
    script = Script(model="out", faults=["503"], retry_after="600", conversations=[conversation])
    gone = threading.Event()
    with ScriptedServer(script) as server:
        order = order_in(tmp_path, base_url=server.base_url, command_timeout=900)
        made = in_thread(lambda: SessionCache().make(order, opening_of(order), shard_of(2), is_given_up=gone.is_set))
        wait_until(lambda: sleeping() and server.requests >= 2, 60)
        began = time.monotonic()
        gone.set()
        given = made(60)
        assert time.monotonic() - began < 10
        with pytest.raises(RunStoppedError, match="not wanted any more"):
            opening_of(order)(ShardRun(tmp_path), gone.is_set).__enter__()
    assert (given.made, given.given_up) == ([], True)
    assert not sleeping()
