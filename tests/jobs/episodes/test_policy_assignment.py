"""Policies of agents, and their servers, which are real processes with a scripted server in place of vLLM."""

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from rollmill.errors import InputError, ServingError
from rollmill.inference import multi_server
from rollmill.inference.backend import EndpointConfig
from rollmill.inference.script import Script
from rollmill.inference.scripted import ScriptedServer
from rollmill.inference.server import ServerConfig
from rollmill.inference.visible_gpus import Gpu, VisibleGpus
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.policy_assignment import (
    assign_policies,
    policies_identity,
    policies_of,
    served_models,
    serving_cast,
)
from tests.inference.adapters import write_adapter
from tests.jobs.episodes.policy_requests import answer_of

ROOT = Path(__file__).parents[3]


def make_parameters(**options):
    return CollectEpisodes.model_validate(options)


def cast(agents=("first", "second"), **options):
    parameters = make_parameters(**options)
    return assign_policies(policies_of(parameters), agents, parameters)


def test_agents_are_assigned_to_policies():
    assert cast(model_path="m") == {"first": "shared_model", "second": "shared_model"}
    assert cast(policy="only=m") == {"first": "only", "second": "only"}
    assert cast(model_path="m", policy="other=n", agent="second=other") == {"first": "shared_model", "second": "other"}
    assert cast(model_path="m", model_name="me", policy="other=n") == {"first": "me", "second": "me"}
    both = cast(policy=["a=m", "b=oracle"], agent={"first": "b", "second": "a"})
    assert both == {"first": "b", "second": "a"}


def test_unused_policy_is_ignored():
    parameters = make_parameters(policy=["a=m", "b=n", "c=o"], agent=["first=a", "second=c"])
    assert [spec.name for spec in policies_of(parameters)] == ["a", "c"]
    assert [spec.name for spec in policies_of(make_parameters(model_path="m", policy="b=n"))] == ["shared_model"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"agent": "third=shared_model"},
         "--agent third=shared_model: code_env has no agent 'third': there are first, second"),
        ({"agent": "first=big"}, "--agent first=big: there is no policy 'big': there are shared_model, small"),
        ({"keep_agents": "third"}, "--keep_agents third: code_env has no agent 'third': there are first, second"),
        ({"model_path": None, "policy": ["small=m", "big=n"], "agent": "first=small"},
         "--agent: no policy for second: give AGENT=POLICY for each, POLICY one of small, big"),
        ({"policy": "small=m,adapter=a", "agent": "first=small", "base_url": "http://a"},
         "--policy small: running servers decide what they serve: leave out adapter, and give the name under which "
         "they serve it as MODEL"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(options, why):
    with pytest.raises(InputError) as caught:
        cast(**{"model_path": "m", "policy": "small=n"} | options)
    assert str(caught.value) == why


def test_policy_identity_and_settings(tmp_path):
    lora = write_adapter(tmp_path / "lora")
    parameters = make_parameters(
        policy=["a=org/base,temperature=0.5", f"b=org/base,adapter={lora}", "c=random"], seed=3,
        agent={"x": "a", "y": "b", "z": "c"},
    )  # fmt: skip
    identity = policies_identity(policies_of(parameters))
    assert identity["a"] == {
        "model": "org/base", "adapter": None,
        "sampling": {"temperature": 0.5, "top_p": 1.0, "max_tokens": 1024, "seed": 3},
    }  # fmt: skip
    assert identity["b"]["adapter"].startswith("sha256:")
    assert identity["c"] == {"model": "random", "sampling": {"seed": 3}}
    (lora / "adapter_model.safetensors").write_bytes(b"other")
    assert policies_identity(policies_of(parameters))["b"] != identity["b"]


def test_policies_on_one_base_share_a_server(tmp_path, monkeypatch):
    item, two = write_adapter(tmp_path / "one", r=4), write_adapter(tmp_path / "two", r=9)
    policy = [f"a=org/base,adapter={item}", "hot=org/base,temperature=2", f"b=org/base,adapter={two}", "far=x,base_url=http://h",
              "o=oracle", "else=org/other"]  # fmt: skip
    parameters = make_parameters(policy=policy, log_dir=str(tmp_path), output_dir=str(tmp_path / "run"))
    first, second = served_models(parameters.policies, parameters)
    assert (first.path, first.name, first.adapter.folder, first.also["hot"]) == ("org/base", "a", item, None)
    assert (list(first.also), first.also["b"].folder) == (["hot", "b"], two)
    assert first.log_path == tmp_path / "run_a_vllm.log"
    assert (second.path, second.name, second.also) == ("org/other", "else", {})
    with pytest.raises(
        InputError, match=r"--model_port 8000: there are 2 servers, for org/base, org/other: leave it out"
    ):
        served_models(parameters.policies, parameters.model_copy(update={"model_port": 8000}))
    alone = served_models(parameters.policies[:1], parameters.model_copy(update={"model_port": 8000}))
    assert [model.log_path for model in alone] == [tmp_path / "run_vllm.log"]
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    spelled = make_parameters(policy=["a=./model", f"b={tmp_path}/model/", "c=model"])
    [shared] = served_models(spelled.policies, spelled)
    assert (shared.path, list(shared.also)) == (str(tmp_path / "model"), ["b", "c"])


def test_an_adapter_of_another_base_starts_nothing(tmp_path):
    lora = write_adapter(tmp_path / "lora")
    parameters = make_parameters(policy=f"a=org/other,adapter={lora}", log_dir=str(tmp_path / "logs"))
    with pytest.raises(InputError, match="was trained for org/base, not for org/other"):
        serving_cast(parameters, policies_of(parameters)).__enter__()
    assert not (tmp_path / "logs").exists()


@pytest.fixture
def server():
    """How to start the scripted server where vLLM would be."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/flows/stand_in")])
    return ServerConfig(python=sys.executable, environment={"PYTHONPATH": path, "ROLLMILL_KIND": "cpu"}, grace_s=5.0)


def scripts(base, learned):
    return f"""--script '{{"completion": "{base}"}}' --learned '{{"completion": "{learned}"}}'"""


@pytest.mark.slow
def test_each_base_has_one_server_with_its_adapters(tmp_path, server):
    item, two = write_adapter(tmp_path / "one", r=4), write_adapter(tmp_path / "two", r=9)
    policy = [f"a=org/base,adapter={item}", "plain=org/base", "hot=org/base", f"b=org/base,adapter={two}",
              "other=org/other", "o=oracle"]  # fmt: skip
    parameters = make_parameters(policy=policy, vllm_args=scripts("base", "learned"), log_dir=str(tmp_path / "logs"))
    before = set(psutil.Process().children())
    with serving_cast(parameters, parameters.policies, server=server) as served:
        children = set(psutil.Process().children()) - before
        assert len(children) == 2
        assert {name: item.model for name, item in served.items()} == {
            name: name for name in ("a", "plain", "hot", "b", "other")
        }
        assert {name: answer_of(item) for name, item in served.items()} == {
            "a": "learned", "plain": "base", "hot": "base", "b": "learned", "other": "base",
        }  # fmt: skip
        assert len({id(item.endpoints[0]) for item in served.values()}) == 2
        line = next(child.cmdline() for child in children if "org/base" in child.cmdline())
    names = line[line.index("--served-model-name") + 1 :]
    assert names[:8] == ["plain", "hot", "--enable-lora", "--max-lora-rank", "16", "--max-loras", "3", "--lora-modules"]
    assert [json.loads(module)["name"] for module in names[8:10]] == ["a", "b"]
    assert set(psutil.Process().children()) <= before


def test_running_servers_are_used_as_they_are(tmp_path):
    with (
        ScriptedServer(Script(model="m", completion="m")) as local,
        ScriptedServer(Script(model="n", completion="n")) as remote,
    ):
        parameters = make_parameters(policy=["a=m", "b=m", f"c=n,base_url={remote.base_url}"], base_url=local.base_url)
        with serving_cast(parameters, parameters.policies) as served:
            assert {name: (item.model, answer_of(item)) for name, item in served.items()} == {
                "a": ("m", "m"), "b": ("m", "m"), "c": ("n", "n"),
            }  # fmt: skip
            assert served["a"].endpoints[0] is served["b"].endpoints[0]
        wrong = make_parameters(policy=f"c=m,base_url={remote.base_url}")
        with pytest.raises(ServingError, match=r"does not serve 'm' but 'n'"):
            serving_cast(wrong, wrong.policies).__enter__()
        block = EndpointConfig(base_urls=(remote.base_url,), api_key="sk-block")
        blocked = make_parameters(policy=["a=n", f"b=m,base_url={local.base_url}"], endpoint_block="block")
        with serving_cast(blocked, blocked.policies, endpoint=block) as served:
            assert served["a"].client.api_key.get_secret_value() == "sk-block"
            assert served["b"].client.api_key is None  # the block's key is for its servers alone


def test_demonstrations_need_no_server():
    parameters = make_parameters(model_path="oracle", policy="r=random")
    with serving_cast(parameters, parameters.policies) as served:
        assert served == {}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("together", [False, True])
def test_if_one_server_does_not_start_all_end(tmp_path, server, monkeypatch, together):
    """The second one ends at once: the first is running by then, or, side by side, still starting."""
    if together:
        gpus = VisibleGpus((Gpu("0"), Gpu("1")))
        monkeypatch.setattr(multi_server, "free_gpus", lambda *_, **__: gpus)
        devices = {"CUDA_VISIBLE_DEVICES": "0,1", "ROLLMILL_KIND": "", "ROLLMILL_SHARE_GPUS": "1"}
        server = server.model_copy(update={"environment": {**server.environment, **devices}})
    lora = write_adapter(tmp_path / "lora")
    start_s = 600 if together else 0  # longer than this test may take: its end is not waited for
    parameters = make_parameters(
        policy=["a=org/other", f"b=org/base,adapter={lora}"], log_dir=str(tmp_path / "logs"),
        vllm_args=f"""--max-lora-rank 1 --script '{{"start_s": {start_s}}}'""",
    )  # fmt: skip
    before = set(psutil.Process().children())
    with pytest.raises(ServingError, match=r"LoRA rank 4 is greater than max_lora_rank 1"):
        serving_cast(parameters, parameters.policies, server=server).__enter__()
    assert set(psutil.Process().children()) <= before
