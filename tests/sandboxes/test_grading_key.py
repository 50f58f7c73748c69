from __future__ import annotations

import os

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes import grading_key
from rollmill.sandboxes.grading_key import key_for, service_keys


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(grading_key, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("ROLLMILL_GRADING_KEY", raising=False)
    return tmp_path / f"rollmill-services-{os.geteuid()}"


def shown(key):
    return key and key.get_secret_value()


def test_services_and_graders_of_one_user_share_a_key(folder):
    assert key_for("http://127.0.0.1:9527") is None
    [key] = service_keys()
    assert [shown(service_key) for service_key in service_keys()] == [shown(key)]
    assert len(shown(key)) == 64
    for url in ("http://127.0.0.1:9527", "http://localhost:1", "http://[::1]:2", "http://127.8.8.8"):
        assert shown(key_for(url)) == shown(key)
    assert [file.name for file in folder.iterdir()] == ["grading.key"]


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:9527", "https://host", "http://localhost.example:1", "http://127.evil.example"]
)
def test_local_key_is_only_sent_to_loopback(url):
    service_keys()
    assert key_for(url) is None


def test_a_key_of_the_environment_is_for_every_machine(monkeypatch):
    monkeypatch.setenv("ROLLMILL_GRADING_KEY", " given ")
    assert shown(key_for("http://10.0.0.1:9527")) == shown(key_for("http://127.0.0.1:1")) == "given"
    keys = [shown(key) for key in service_keys()]
    assert keys[0] == "given"
    assert len(keys) == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_could_read_is_replaced(folder, mode):
    [before] = service_keys()
    (folder / "grading.key").chmod(mode)
    assert key_for("http://127.0.0.1:9527") is None
    [after] = service_keys()
    assert shown(after) != shown(before)
    assert shown(key_for("http://127.0.0.1:9527")) == shown(after)


def test_a_key_behind_a_link_is_not_read(folder, tmp_path):
    service_keys()
    (folder / "grading.key").rename(tmp_path / "elsewhere")
    (folder / "grading.key").symlink_to(tmp_path / "elsewhere")
    assert key_for("http://127.0.0.1:9527") is None


def test_named_pipe_in_place_of_the_key_does_not_block(folder):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "grading.key", 0o600)
    assert key_for("http://127.0.0.1:9527") is None
    assert len(service_keys()) == 1


@pytest.mark.parametrize("how", ["open", "link", "file"])
def test_folder_of_another_user_is_refused(folder, tmp_path, how):
    if how == "open":
        folder.mkdir()
        folder.chmod(0o777)
    elif how == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    else:
        folder.write_text("")
        folder.chmod(0o600)
    assert key_for("http://127.0.0.1:9527") is None
    with pytest.raises(InputError, match="remove it"):
        service_keys()
