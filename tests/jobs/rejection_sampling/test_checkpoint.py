import pytest
from pydantic import ValidationError

from rollmill.config.command_line import parse_command_line
from rollmill.errors import InputError
from rollmill.jobs.rejection_sampling.checkpoint import checkpoints, identity
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.problems.loading import LoadedProblems
from tests.inference.adapters import write_adapter


def given(*adapters, **more):
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
    return identity(parameters, checkpoints(parameters)[index], loaded)


def test_without_an_adapter_a_run_is_what_it_always_was(tmp_path):
    found = identity_of(given(), tmp_path)
    assert found.key == "c02f6b5fb82747f33fc46d39210c72a3a1763c8150ca7e35c5fb6b7c2357de1d"
    assert identity_of(given("", str(write_adapter(tmp_path / "a"))), tmp_path) == found


def test_an_adapter_makes_another_run_wherever_it_lies(tmp_path):
    base = identity_of(given(), tmp_path)
    one = identity_of(given(str(write_adapter(tmp_path / "one"))), tmp_path)
    assert list(base.differences(one)) == ["adapter"]
    (tmp_path / "one").rename(tmp_path / "moved")
    assert identity_of(given(str(tmp_path / "moved")), tmp_path) == one
    assert identity_of(given(str(write_adapter(tmp_path / "two", lora_alpha=3))), tmp_path) != one


def test_all_adapters_are_checked_before_the_first_is_served(tmp_path):
    good, bad = write_adapter(tmp_path / "good"), write_adapter(tmp_path / "bad", base_model_name_or_path="org/other")
    found = checkpoints(given(str(good), ""))
    assert [one.adapter and one.adapter.folder for one in found] == [good, None]
    with pytest.raises(InputError, match="was trained for org/other, not for org/base"):
        checkpoints(given(str(good), str(bad)))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"cluster_block": "gpus", "gpu_workers": 2}, "give --cluster_block or --gpu_workers, not both"),
        ({"model_port": 8000, "gpu_workers": 2}, "--model_port 8000: there are 2 servers with --gpu_workers"),
        ({"adapter": ["a", "b"]}, "2 --adapter but 1 --model_path: give as many"),
        ({"adapter": "a", "base_url": "http://there"}, "running servers decide what they serve: leave it out, and"),
        ({"adapter": "a", "skip_vllm_launch": True}, "as --model_path and the name under which they serve it as"),
        ({"adapter": "a", "endpoint_block": "there"}, "--adapter: running servers decide"),
    ],
)
def test_mistakes(mistake, words):
    with pytest.raises(ValidationError, match=words):
        given(**mistake)


def test_on_the_command_line():
    line = ["--model_path", "m", "m", "--model_name", "a", "b", "--adapter", "", "dir"]
    parsed = parse_command_line(RejectSampling, line, prog="x", description="", examples="", environ={})
    assert parsed.adapters == ["", "dir"]
    assert given(adapter="", base_url="http://there").adapters == [""]
    assert given(model_path=["a", "b"], model_name=["a", "b"]).adapters == ["", ""]
