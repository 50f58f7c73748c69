"""Episodes on a worker: its job, its rollouts, and its end."""

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

from rollmill.errors import InputError
from rollmill.generation.job import opened_run
from rollmill.generation.services import Services
from rollmill.generation.worker_session import end_session_if_idle, worker
from rollmill.inference.server import ServerConfig
from rollmill.jobs.episodes.job import EpisodesJob
from rollmill.jobs.episodes.parameters import CollectEpisodes
from tests.inference.adapters import write_adapter
from tests.jobs.episodes.toy import Settings as ToySettings
from tests.jobs.episodes.toy import ToyEnvironment
from tests.waiting import wait_until

SCRIPTED = ServerConfig(python=sys.executable, module="rollmill.inference.scripted", grace_s=5.0)


class WithWords(ToyEnvironment):
    """A user's own, whose settings name a file."""

    class Settings(ToySettings):
        words: Path = Path("words.txt")

    @classmethod
    def agent_names(cls, settings):
        return ["w", "x", "y", "z"]


WORDS = "tests.jobs.episodes.test_job:WithWords"


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


def make_parameters(**options):
    toy = {"env_name": "tests.jobs.episodes.toy:ToyEnvironment", "total_rollouts": 12}
    return CollectEpisodes.model_validate(toy | options)


def job_of(**options):
    return EpisodesJob.of(make_parameters(**options))


def scripted() -> Services:
    return Services(server=SCRIPTED)


@contextmanager
def shard_of(job):
    with opened_run(job) as run:
        yield job.scheduler(run, job.progress(run)).cut(100)


def test_job_for_a_worker_has_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    write_adapter(tmp_path / "lora")
    policy = ["a=model,adapter=lora", "b=org/m", "c=model,base_url=http://a", "d=oracle"]
    options = {"policy": policy, "agent": {"w": "a", "x": "b", "y": "c", "z": "d"}, "env_name": WORDS}
    job = job_of(**options, env={"words": "texts"}, seed=3)
    worker_job = job.for_worker()
    assert [(spec.model, spec.adapter) for spec in worker_job.policies] == [
        (str(tmp_path / "model"), str(tmp_path / "lora")), ("org/m", ""), ("model", ""), ("oracle", ""),
    ]  # fmt: skip
    assert [spec.sampling for spec in worker_job.policies] == [spec.sampling for spec in job.policies]
    assert worker_job.directory == tmp_path / "sft_data"
    assert worker_job.parameters.log_dir == str(tmp_path / "logs")
    assert worker_job.settings.words == tmp_path / "texts"
    assert pickle.loads(pickle.dumps(worker_job)) == worker_job


def test_the_name_of_a_model_on_a_server_is_not_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert job_of(model_path="model", base_url="http://a").for_worker().policies[0].model == "model"


def test_defaults_of_settings_that_name_files_are_absolute_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worker_job = job_of(model_path="oracle", env_name=WORDS).for_worker()
    assert worker_job.settings.words == tmp_path / "words.txt"


def test_an_unknown_policy_is_refused_before_anything_starts():
    with pytest.raises(InputError, match="--agent x=b: there is no policy 'b'"):
        job_of(model_path="m", agent="x=b")


def test_a_worker_serves_policies_on_servers_of_its_own(tmp_path):
    policy = ["one=org/one", "two=org/two"]
    where = {"output_dir": str(tmp_path / "run"), "log_dir": str(tmp_path / "logs")}
    script = """--script '{"completion": "1"}'"""
    job = job_of(policy=policy, agent=["first=one", "second=two"], vllm_args=script, max_turns=6, **where)
    before = set(psutil.Process().children(recursive=True))
    with shard_of(job) as shard:
        rollouts = job.for_worker().make_shard(shard, scripted, caller="test")
        servers = set(psutil.Process().children(recursive=True)) - before
        end_session_if_idle()
    assert servers
    rows = {(rollout.instance_id, rollout.sample_id): orjson.loads(rollout.line) for rollout in rollouts.completed}
    assert len(rows) == len(rollouts.completed) == 12
    assert {row["success"] for row in rows.values()} == {True}
    # The answer of problem n is n + 2, and each turn adds one.
    players = [(turn["agent_name"], turn["policy_name"]) for turn in rows["toy-1", 0]["turns"]]
    assert players == [("first", "one"), ("second", "two"), ("first", "one")]
    custom = worker().replace(":", "-")
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {
        f"run_one_vllm.{custom}.log", f"run_two_vllm.{custom}.log",
    }  # fmt: skip
    assert not [process for process in servers if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(120)
def test_abandoned_servers_end_before_they_are_ready(tmp_path):
    policy = ["one=org/one", "two=org/two"]
    script = """--script '{"start_s": 600}'"""
    job = job_of(policy=policy, agent=["first=one", "second=two"], vllm_args=script,
                 output_dir=str(tmp_path), log_dir=str(tmp_path))  # fmt: skip
    looks = iter([False] * 3)

    def is_given_up():
        return next(looks, True)

    before = set(psutil.Process().children())
    with shard_of(job) as shard:
        assert job.make_shard(shard, scripted, caller="test", is_given_up=is_given_up).given_up
    assert set(psutil.Process().children()) <= before


@pytest.fixture
def sandboxes(monkeypatch):
    """A folder for temporary files that other users may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="sandboxes-of-a-test-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_abandoned_episodes_end_with_their_sandboxes(tmp_path, sandboxes):
    sleeping = "tests.jobs.episodes.test_job:Sleeping"
    job = job_of(model_path="oracle", env_name=sleeping, code_timeout=6000,
                 sandboxes_at_once=2, concurrency=4, output_dir=str(tmp_path / "run"))  # fmt: skip
    missing = threading.Event()
    before = set(psutil.Process().children(recursive=True))

    def running():
        """The first word of each new process's command."""
        for process in set(psutil.Process().children(recursive=True)) - before:
            with suppress(psutil.Error):
                yield next(iter(process.cmdline()), "")

    with shard_of(job) as shard, ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        stack.callback(missing.set)
        making = threads.submit(job.make_shard, shard, Services, caller="test", is_given_up=missing.is_set)
        wait_until(lambda: list(running()).count("python3") == 2)
        missing.set()
        rollouts = making.result(60)
    assert (rollouts.completed, rollouts.given_up) == ([], True)
    assert list(running()) == []
    assert [path for path in sandboxes.rglob("*") if path.is_file()] == []


def test_abandoned_session_opens_no_tools(tmp_path, sandboxes):
    job = job_of(model_path="oracle", env_name="search_env", output_dir=str(tmp_path / "run"))
    with shard_of(job) as shard:
        assert job.make_shard(shard, Services, caller="test", is_given_up=lambda: True).given_up
    assert list(sandboxes.iterdir()) == []
