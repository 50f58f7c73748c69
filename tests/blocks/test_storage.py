from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from blocks.storage import ResultStore
from rollmill.errors import InputError
from tests.files.s3 import S3Server


def test_check_writes_a_file():
    with S3Server() as server:
        block = ResultStore(**dict(server.config()))
        assert block.check() == "s3://results/runs: a file was written, read and deleted"
        assert server.objects() == {}


def test_check_of_a_folder_needs_no_key(tmp_path):
    assert ResultStore(url=str(tmp_path)).check() == f"{tmp_path}: a file was written, read and deleted"
    with pytest.raises(InputError, match="there is no such folder"):
        ResultStore(url=f"{tmp_path}/nothing").check()


def test_keys_of_a_store_are_not_shown():
    store = ResultStore(url="s3://b", key=SecretStr("canary-1"), secret=SecretStr("canary-2"))
    config = store.to_config()
    assert "canary" not in repr(store) + repr(config) + config.model_dump_json()
    assert config.key is not None
    assert config.secret is not None
    assert (config.key.get_secret_value(), config.secret.get_secret_value()) == ("canary-1", "canary-2")


@pytest.mark.parametrize("values", [{"url": ""}, {"url": "s3://b", "endpoint_url": "minio:9000"}])
def test_invalid_values_are_refused(values):
    with pytest.raises(ValidationError):
        ResultStore(**values)
