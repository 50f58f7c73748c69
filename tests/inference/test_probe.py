import socket

import orjson
import pytest

from rollmill.errors import ServingError
from rollmill.inference.probe import NotAnsweringError, check_model, healthy, served_models
from rollmill.inference.scripted import Script, ScriptedServer
from tests.inference.raw_server import RawServer


def listing(*models):
    return orjson.dumps({"data": list(models)})


def test_served_models_and_their_roots_are_listed():
    with RawServer(lambda *_: (200, listing({"id": "a", "root": "/models/a"}, {"id": "b"}))) as server:
        models = served_models(server.base_url, api_key="sk")
        assert {name: model.root for name, model in models.items()} == {"a": "/models/a", "b": "b"}
        assert server.headers[0]["Authorization"] == "Bearer sk"
        assert check_model(server.base_url, ("x", "b")) == "b"
        assert "Authorization" not in server.headers[1]


def test_another_model_is_named():
    with ScriptedServer(Script(model="other")) as server:
        assert healthy(server.base_url)
        with pytest.raises(ServingError, match="does not serve 'mine' but 'other': give the served name") as caught:
            check_model(server.base_url, ("mine", "/models/mine"))
        assert not isinstance(caught.value, NotAnsweringError)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, b"{}"), "/models answers 401 Unauthorized"),
        ((200, b"<html>"), "is not an OpenAI-compatible list"),
        ((200, b"[1]"), "is not an OpenAI-compatible list"),
        ((200, b'{"data": [{"name": "x"}]}'), "is not an OpenAI-compatible list"),
        ((200, b'{"data": []}'), "lists none"),
        ((200, b'{"data": null}'), "is not an OpenAI-compatible list"),
    ],
)
def test_something_else_answers(answer, words):
    with RawServer(lambda *_: answer) as server, pytest.raises(NotAnsweringError, match=words):
        check_model(server.base_url, ("m",))


@pytest.mark.parametrize(
    "respond",
    [
        lambda *_: (401, b'{"error": "bad key sk-canary"}'),
        lambda *_: (302, b"", {"Location": "http://login/?key=sk-canary"}),
    ],
)
def test_no_key_stands_in_a_message(respond):
    with RawServer(respond) as server, pytest.raises(NotAnsweringError, match=r"\*\*\*") as caught:
        served_models(server.base_url, api_key="sk-canary")
    assert "sk-canary" not in str(caught.value)


def test_an_error_is_not_healthy():
    with RawServer(lambda *_: (503, b"")) as server:
        assert not healthy(server.base_url)


def test_nothing_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(NotAnsweringError, match=r"no server answers at .*timed out"):
            served_models(url, timeout_s=0.2)
        assert not healthy(url, timeout_s=0.2)
    with pytest.raises(NotAnsweringError, match=r"no server answers at .*refused"):
        served_models(url)
    assert not healthy(url)


def test_a_proxy_is_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ScriptedServer(Script()) as server:
        assert healthy(server.base_url)
