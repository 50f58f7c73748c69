"""Episodes on a worker: what it is told, what it makes, and how it ends."""

import pickle
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import orjson
import psutil
import pytest

from rollmill.environments.registry import find_environment
from rollmill.errors import InputError, RunStoppedError
from rollmill.generation.progress import progress_of
from rollmill.generation.shard import ShardRun, ShardScheduler
from rollmill.generation.worker_session import SessionCache, worker
from rollmill.inference.server import ServerConfig
from rollmill.jobs.episodes.episode_session import episodes_order, episodes_session
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.run import environment_settings, hold, open_collection
from tests.inference.adapters import write_adapter
from tests.jobs.episodes.toy import Settings as ToySettings
from tests.jobs.episodes.toy import ToyEnvironment
from tests.waiting import wait_until

SCRIPTED = ServerConfig(python=sys.executable, module="rollmill.inference.scripted", grace_s=5.0)
NOWHERE = {"endpoint": None, "sandboxes": None, "search": None}


class WithWords(ToyEnvironment):
    """A user's own, whose settings name a file."""

    class Settings(ToySettings):
        words: Path = Path("words.txt")


class Sleeping(ToyEnvironment):
    """Runs what does not end."""

    needs = frozenset({"python"})

    @classmethod
    def make(cls, problem, seed, settings, tools):
        world = cls(problem, settings)
        world.python = tools.python
        return world

    @property
    def done(self):
        self.python.run("import time\ntime.sleep(6000)")


def asked(**given):
    toy = {"env_name": "tests.jobs.episodes.toy:ToyEnvironment", "num_episodes": 12}
    return CollectEpisodes.model_validate(toy | given)


def opening(order, server=SCRIPTED):
    return lambda part, is_given_up: episodes_session(order, part, is_given_up, server=server, **NOWHERE)


@contextmanager
def shard_of(parameters):
    with hold(parameters), open_collection(parameters) as run:
        yield ShardScheduler(run, progress_of(run)).cut(100)


def test_what_a_worker_is_told_holds_wherever_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    write_adapter(tmp_path / "lora")
    policy = ["a=model,adapter=lora", "b=org/m", "c=model,base_url=http://a", "d=oracle"]
    given = {"policy": policy, "agent": {"w": "a", "x": "b", "y": "c", "z": "d"}, "env_name": "search_env"}
    parameters = asked(**given, env={"corpus": "texts", "top_k": 2}, seed=3)
    order = episodes_order(parameters)
    assert [(spec.model, spec.adapter) for spec in order.specs] == [
        (str(tmp_path / "model"), str(tmp_path / "lora")), ("org/m", ""), ("model", ""), ("oracle", ""),
    ]  # fmt: skip
    assert [spec.sampling for spec in order.specs] == [spec.sampling for spec in parameters.policies]
    assert order.directory == tmp_path / "sft_data"
    assert order.parameters.log_dir == str(tmp_path / "logs")
    assert order.parameters.env_settings == {"corpus": str(tmp_path / "texts"), "top_k": 2}
    assert pickle.loads(pickle.dumps(order)) == order == episodes_order(parameters)
    running = episodes_order(asked(model_path="model", base_url="http://a"))
    assert running.specs[0].model == "model"  # a server's name for it
    own = episodes_order(asked(model_path="oracle", env_name="tests.jobs.episodes.test_episode_session:WithWords"))
    told = environment_settings(own.parameters, find_environment(own.parameters.env_name))
    assert told == WithWords.Settings(words=tmp_path / "words.txt")
    with pytest.raises(InputError, match="--agent x=b: there is no policy 'b'"):
        episodes_order(asked(model_path="m", agent="x=b"))


def test_a_worker_serves_policies_on_servers_of_its_own(tmp_path):
    policy = ["one=org/one", "two=org/two"]
    where = {"output_dir": str(tmp_path / "run"), "log_dir": str(tmp_path / "logs")}
    script = """--script '{"completion": "1"}'"""
    parameters = asked(policy=policy, agent=["first=one", "second=two"], vllm_args=script, max_turns=6, **where)
    keeper = SessionCache()
    before = set(psutil.Process().children(recursive=True))
    with shard_of(parameters) as shard:
        order = episodes_order(parameters)
        given = keeper.make(order, opening(order), shard)
        servers = set(psutil.Process().children(recursive=True)) - before
        keeper.end()
    assert servers
    rows = {(one.instance_id, one.sample_id): orjson.loads(one.line) for one in given.made}
    assert len(rows) == len(given.made) == 12
    assert {row["success"] for row in rows.values()} == {True}
    # The answer of problem n is n + 2, and each turn adds one.
    said = [(turn["agent_name"], turn["policy_name"]) for turn in rows["toy-1", 0]["turns"]]
    assert said == [("first", "one"), ("second", "two"), ("first", "one")]
    own = worker().replace(":", "-")
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {
        f"run_one_vllm.{own}.log", f"run_two_vllm.{own}.log",
    }  # fmt: skip
    assert not [process for process in servers if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(120)
def test_servers_that_nobody_waits_for_any_more_end_before_they_are_ready(tmp_path):
    policy = ["one=org/one", "two=org/two"]
    script = """--script '{"start_s": 600}'"""
    order = episodes_order(asked(policy=policy, agent=["first=one", "second=two"], vllm_args=script,
                                 output_dir=str(tmp_path), log_dir=str(tmp_path)))  # fmt: skip
    looks = iter([False] * 3)

    def is_given_up():
        return next(looks, True)

    before = set(psutil.Process().children())
    with pytest.raises(RunStoppedError, match="not wanted any more"):
        opening(order)(ShardRun(tmp_path), is_given_up).__enter__()
    assert set(psutil.Process().children()) <= before


@pytest.fixture
def sandboxes(monkeypatch):
    """A folder for temporary files that other users may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="sandboxes-of-a-test-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_given_up_episodes_under_way_end_and_their_sandboxes_too(tmp_path, sandboxes):
    sleeping = "tests.jobs.episodes.test_episode_session:Sleeping"
    parameters = asked(model_path="oracle", env_name=sleeping, code_timeout=6000,
                       sandboxes_at_once=2, concurrency=4, output_dir=str(tmp_path / "run"))  # fmt: skip
    order, gone, keeper = episodes_order(parameters), threading.Event(), SessionCache()
    before = set(psutil.Process().children(recursive=True))

    def running():
        """The first word of each new process's command."""
        for process in set(psutil.Process().children(recursive=True)) - before:
            with suppress(psutil.Error):
                yield next(iter(process.cmdline()), "")

    with shard_of(parameters) as shard, ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        stack.callback(gone.set)
        making = threads.submit(keeper.make, order, opening(order, None), shard, is_given_up=gone.is_set)
        wait_until(lambda: list(running()).count("python3") == 2)
        gone.set()
        given = making.result(60)
    assert (given.made, given.given_up) == ([], True)
    assert list(running()) == []
    assert [path for path in sandboxes.rglob("*") if path.is_file()] == []


def test_what_is_not_wanted_from_the_start_opens_no_tools(tmp_path, sandboxes):
    order = episodes_order(asked(model_path="oracle", env_name="search_env", output_dir=str(tmp_path)))
    with pytest.raises(RunStoppedError, match="not wanted any more"):
        opening(order)(ShardRun(tmp_path), lambda: True).__enter__()
    assert list(sandboxes.iterdir()) == []
