from __future__ import annotations

import pytest
from pydantic import SecretStr

from blocks.services import EvaluationService, SandboxService, SearchService, find_services
from rollmill.errors import InputError, ServingError
from rollmill.generation.services import Services
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from tests.inference.raw_server import RawServer

BLOCKS = pytest.mark.parametrize("block", [SandboxService, EvaluationService, SearchService])


@BLOCKS
def test_check_describes_the_service_in_one_line(block):
    with RawServer(lambda headers, path: (200, b'{"service": "s", "max_sandboxes": 8}')) as server:
        url = server.base_url.removesuffix("/v1")
        assert block(address=url, token=SecretStr("k")).check() == f"{url}: service s, max sandboxes 8"
        assert server.headers[0]["Authorization"] == "Bearer k"


@BLOCKS
def test_foreign_service_without_status_passes_the_check(block):
    with RawServer(lambda headers, path: (404, b"")) as server:
        url = server.base_url.removesuffix("/v1")
        assert block(address=url).check() == f"{url}: a server answers, but it has no /status"
    with pytest.raises(ServingError, match="no service answers"):
        block(address=url).check()


@BLOCKS
def test_refused_token_is_reported(block):
    server = RawServer(lambda headers, path: (401, b'{"detail": "not the right one"}'))
    with server, pytest.raises(ServingError, match="answers 401: not the right one"):
        block(address=server.base_url).check()


@BLOCKS
def test_token_of_a_service_is_not_shown(block):
    service = block(address="host:1/", token=SecretStr("canary"))
    config = service.to_config()
    assert "canary" not in repr(service) + repr(config) + config.model_dump_json()
    assert config.address == "http://host:1"
    assert config.token is not None
    assert config.token.get_secret_value() == "canary"


@BLOCKS
def test_invalid_address_is_refused(block):
    with pytest.raises(InputError, match="is not the address of a service"):
        block(address="ftp://x").to_config()


def test_no_block_names_give_no_services():
    assert find_services(AgentRollouts(model_path="m", dataset="d.json", output="o.json")) == Services()
