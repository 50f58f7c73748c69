from __future__ import annotations

import sys

import pytest
from pydantic import SecretStr

from blocks.inference import InferenceEndpoint, VLLMServer, endpoint_config, server_config
from rollmill.errors import InputError, ServingError
from rollmill.serving.scripted import Script, ScriptedServer


def test_an_endpoint_checks_by_asking_its_servers():
    with ScriptedServer(Script(model="m")) as server:
        block = InferenceEndpoint(base_urls=[server.base_url], api_key=SecretStr("k"))
        assert block.check() == {server.base_url: ["m"]}
    with pytest.raises(ServingError, match="no server answers"):
        block.check()


def test_an_endpoint_keeps_its_key_secret():
    block = InferenceEndpoint(base_urls=["http://127.0.0.1:1/v1"], api_key=SecretStr("canary"))
    assert "canary" not in repr(block) + repr(block.to_config()) + block.to_config().model_dump_json()
    key = block.to_config().api_key
    assert key is not None
    assert key.get_secret_value() == "canary"


def test_a_server_checks_its_interpreter():
    assert VLLMServer(python=sys.executable).check() == sys.executable
    with pytest.raises(InputError, match="/nowhere/python"):
        VLLMServer(python="/nowhere/python").check()


def test_a_server_becomes_its_config():
    block = VLLMServer(python="p", arguments=["--a"], environment={"B": "c"}, startup_timeout_s=5, max_restarts=1)
    config = block.to_config()
    assert (config.python, config.arguments, config.environment) == ("p", ("--a",), {"B": "c"})
    assert (config.startup_timeout_s, config.max_restarts) == (5, 1)


@pytest.mark.parametrize("block", [InferenceEndpoint, VLLMServer])
def test_every_field_is_described(block):
    own = set(block.model_fields) - set(block.__mro__[1].model_fields)
    assert own
    assert all(block.model_fields[name].description for name in own)


def test_no_name_is_no_block():
    assert endpoint_config(None) is None
    assert server_config(None) is None
