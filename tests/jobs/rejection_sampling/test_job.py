import pickle
import sys

import orjson
import pytest
from pydantic import ValidationError

from rollmill.config.command_line import parse_command_line
from rollmill.errors import InputError
from rollmill.generation.progress import progress_of
from rollmill.generation.services import Services
from rollmill.generation.shard import ProblemScheduler
from rollmill.generation.worker_session import end_session_if_idle, worker
from rollmill.inference.server import ServerConfig
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.problems.loading import LoadedProblems
from tests.generation.run_factory import opened
from tests.inference.adapters import write_adapter

SCRIPTED = ServerConfig(python=sys.executable, module="rollmill.inference.scripted")


def scripted() -> Services:
    return Services(server=SCRIPTED)


def job_of(**options):
    parameters = RejectSampling(**{"model_path": "m", "model_name": "n", "max_tokens": 100} | options)
    return jobs(parameters)[0]


def test_job_for_a_worker_has_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "template.txt").write_text("Say: {prompt}")
    job = job_of(model_path="model", prompt_template="template.txt").for_worker()
    assert job.model.path == str(tmp_path / "model")
    assert job.directory == tmp_path / "reject_sampling_results/n"
    assert job.model.log_path == tmp_path / "logs/n_vllm.log"
    assert job.prompting.template == "Say: {prompt}"
    assert pickle.loads(pickle.dumps(job)) == job


def test_the_name_of_a_model_on_a_server_or_the_hub_is_not_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert job_of(model_path="model", base_url="http://a").for_worker().model.path == "model"
    assert job_of(model_path="org/model").for_worker().model.path == "org/model"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"few_shot": "nowhere.jsonl"}, "nowhere"),
        ({"prompt_template": "no prompt"}, "no {prompt} in it"),
    ],
)
def test_files_of_parameters_are_checked_before_anything_starts(mistake, words):
    with pytest.raises(InputError, match=words):
        job_of(**mistake)


def test_a_worker_serves_the_model_itself(tmp_path):
    job = job_of(model_path=str(tmp_path), output_dir=str(tmp_path), log_dir=str(tmp_path / "logs"), num_rollout=2)
    with opened(tmp_path / "run", rows=2, num_rollout=2) as run:
        shard = ProblemScheduler(run, progress_of(run)).cut(100)
    rollouts = job.make_shard(shard, scripted, caller="test")
    end_session_if_idle()
    rows = [orjson.loads(rollout.line) for rollout in rollouts.completed]
    assert {row["metadata"]["model"] for row in rows} == {"n"}
    assert [rollout.outcome.status for rollout in rollouts.completed] == ["ok"] * 4
    [log] = (tmp_path / "logs").iterdir()
    assert log.name == f"n_vllm.{worker().replace(':', '-')}.log"


@pytest.mark.timeout(300)
def test_an_abandoned_server_ends_before_it_is_ready(tmp_path):
    job = job_of(
        output_dir=str(tmp_path), log_dir=str(tmp_path), vllm_args="""--script '{"start_s": 600}'""", num_rollout=1
    )
    with opened(tmp_path / "run", rows=1, num_rollout=1) as run:
        shard = ProblemScheduler(run, progress_of(run)).cut(100)
    looks = 0

    def is_given_up():
        nonlocal looks
        looks += 1
        return looks > 3

    rollouts = job.make_shard(shard, scripted, caller="test", is_given_up=is_given_up)
    assert rollouts.given_up
    assert rollouts.completed == []
    assert looks > 3


def make_parameters(*adapters, **more):
    count = max(1, len(adapters))
    names = {"model_path": ["org/base"] * count, "model_name": [f"m{n}" for n in range(count)]}
    return RejectSampling(**{**names, "adapter": list(adapters), **more})


def identity_of(parameters, tmp_path, index=0):
    loaded = LoadedProblems(
        path=tmp_path / "problems.jsonl",
        sha256="0" * 64,
        count=1,
        quarantined=0,
        quarantine_path=None,
        fields={},
        reasons={},
    )
    return jobs(parameters)[index].identity(loaded)


def test_the_identity_without_an_adapter_has_not_changed(tmp_path):
    result = identity_of(make_parameters(), tmp_path)
    assert result.key == "efea1f9ea59b33e6abe2d5544510a321e9aed7af9d0c0cffd1b2513b547cad6f"
    older = identity_of(make_parameters(answer="first", strict_numbers=True), tmp_path)
    assert older.key == "c02f6b5fb82747f33fc46d39210c72a3a1763c8150ca7e35c5fb6b7c2357de1d"  # of numeric@1
    assert identity_of(make_parameters("", str(write_adapter(tmp_path / "a"))), tmp_path) == result


def test_an_adapters_content_is_part_of_the_identity(tmp_path):
    base = identity_of(make_parameters(), tmp_path)
    item = identity_of(make_parameters(str(write_adapter(tmp_path / "one"))), tmp_path)
    assert list(base.differences(item)) == ["adapter"]
    (tmp_path / "one").rename(tmp_path / "moved")
    assert identity_of(make_parameters(str(tmp_path / "moved")), tmp_path) == item
    assert identity_of(make_parameters(str(write_adapter(tmp_path / "two", lora_alpha=3))), tmp_path) != item


def test_all_adapters_are_checked_before_the_first_is_served(tmp_path):
    good, bad = write_adapter(tmp_path / "good"), write_adapter(tmp_path / "bad", base_model_name_or_path="org/other")
    models = [job.model for job in jobs(make_parameters(str(good), ""))]
    assert [model.adapter and model.adapter.folder for model in models] == [good, None]
    with pytest.raises(InputError, match="was trained for org/other, not for org/base"):
        jobs(make_parameters(str(good), str(bad)))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"cluster_block": "gpus", "gpu_workers": 2}, "give --cluster_block or --gpu_workers, not both"),
        ({"model_port": 8000, "gpu_workers": 2}, "--model_port 8000: there are 2 servers with --gpu_workers"),
        ({"adapter": ["a", "b"]}, "2 --adapter but 1 --model_path: give as many"),
        ({"adapter": "a", "base_url": "http://there"}, "running servers decide what they serve: leave it out, and"),
        ({"adapter": "a", "skip_vllm_launch": True}, "as --model_path and the name under which they serve it as"),
        ({"adapter": "a", "endpoint_block": "there"}, "--adapter: running servers decide"),
        ({"base_url": "http://a", "endpoint_block": "there"}, "give --base_url or --endpoint_block, not both"),
        ({"verifier": "nummeric"}, "there is no such verifier.*did you mean numeric"),
        ({"vllm_args": "--max-model-len 'oops"}, "No closing quotation"),
    ],
)
def test_mistakes_are_refused(mistake, words):
    with pytest.raises(ValidationError, match=words):
        make_parameters(**mistake)


def test_adapters_on_the_command_line():
    line = ["--model_path", "m", "m", "--model_name", "a", "b", "--adapter", "", "dir"]
    parsed = parse_command_line(RejectSampling, line, prog="x", description="", examples="", environ={})
    assert parsed.adapters == ["", "dir"]
    assert make_parameters(adapter="", base_url="http://there").adapters == [""]
    assert make_parameters(model_path=["a", "b"], model_name=["a", "b"]).adapters == ["", ""]
