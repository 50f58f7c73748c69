from __future__ import annotations

import pytest
from pydantic import SecretStr

from blocks.search import SearchService, search_service
from rollmill.errors import InputError, ServingError
from tests.inference.raw_server import RawServer


def test_a_check_says_what_is_there_in_one_line():
    with RawServer(lambda headers, path: (404, b"")) as server:
        url = server.base_url.removesuffix("/v1")
        block = SearchService(address=url, token=SecretStr("k"))
        assert block.check() == f"{url}: a server answers, which says nothing of itself"
        assert server.headers[0]["Authorization"] == "Bearer k"
    with pytest.raises(ServingError, match="no service answers"):
        block.check()


def test_a_refused_token_is_said():
    server = RawServer(lambda headers, path: (401, b'{"detail": "not the right one"}'))
    with server, pytest.raises(ServingError, match="answers 401: not the right one"):
        SearchService(address=server.base_url).check()


def test_a_block_keeps_its_token_secret():
    made = SearchService(address="host:1/", token=SecretStr("canary"))
    config = made.to_config()
    assert "canary" not in repr(made) + repr(config) + config.model_dump_json()
    assert config.address == "http://host:1"
    assert config.token is not None
    assert config.token.get_secret_value() == "canary"


def test_what_is_no_address_is_said():
    with pytest.raises(InputError, match="is no address"):
        SearchService(address="ftp://x").to_config()


def test_no_name_is_no_block():
    assert search_service(None) is None
