"""Request fields that running servers refuse are found before the run, and reported, renamed or left out."""

from types import SimpleNamespace

import orjson
import pytest
from pydantic import SecretStr

from rollmill.errors import InputError, ServingError
from rollmill.inference.backend import EndpointConfig, use_running_servers
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges, refused_parameter
from rollmill.inference.trial import TrialRequest, find_changes
from tests.inference.raw_server import RawServer

GOOD = orjson.dumps({"choices": [{"message": {"content": "OK"}, "finish_reason": "stop"}]})
FIELDS = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 64}


def refusing(message, **named):
    return 400, orjson.dumps({"error": {"message": message, **named}})


def server_that(answer, models=({"id": "m"},), listing=None):
    """A server of its own kind: `answer(request)` gives None for a good answer. It remembers its requests."""
    requests = []

    def respond(headers, body):
        if body == b"/v1/models":
            return listing or (200, orjson.dumps({"data": list(models)}))
        requests.append(orjson.loads(body))
        return answer(requests[-1]) or (200, GOOD)

    server = RawServer(respond)
    server.requests = requests
    return server


def parameters(**arguments):
    defaults = {"request_timeout": 5.0, "max_retries": 0, "drop_params": False, "record_tokens": None}
    return SimpleNamespace(**{**defaults, **arguments})


def tried(server, *, names=("m",), fields=FIELDS, endpoint=None, **arguments):
    return find_changes(TrialRequest(parameters(**arguments), (server.base_url,), names, fields, endpoint))


def unsupported(name):
    return refusing(f"Unsupported parameter: '{name}' is not supported with this model.", param=name)


def test_a_server_that_takes_everything_is_asked_once():
    with server_that(lambda request: None) as server:
        assert tried(server) == NO_CHANGES
    (request,) = server.requests
    assert {name: request[name] for name in FIELDS} == FIELDS
    assert (request["seed"], request["stream"], request["model"]) == (0, False, "m")


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_a_server_that_is_known_to_take_everything_is_not_asked(owner):
    with server_that(lambda request: None, models=[{"id": "m", "owned_by": owner}]) as server:
        assert tried(server) == NO_CHANGES
    assert server.requests == []


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "Unrecognized request argument supplied: max_tokens",
        "unknown field `max_tokens`",
    ],
)
def test_max_tokens_is_renamed_for_servers_with_another_name(words):
    with server_that(lambda request: refusing(words) if "max_tokens" in request else None) as server:
        changes = tried(server)
    assert changes == RequestChanges(renamed={"max_tokens": "max_completion_tokens"})
    assert server.requests[-1]["max_completion_tokens"] == 64
    assert "max_completion_tokens for max_tokens" in changes.notes()[0]


@pytest.mark.parametrize(
    "refusal",
    [
        (422, orjson.dumps({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]})),
        (400, orjson.dumps([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}])),
        (400, orjson.dumps({"error": "property 'seed' is unsupported"})),
        (200, orjson.dumps({"error": {"code": 400, "message": "seed: Extra inputs are not permitted"}})),
    ],
)
def test_a_seed_is_left_out_and_said(refusal):
    with server_that(lambda request: refusal if "seed" in request else None) as server:
        changes = tried(server)
    assert changes == RequestChanges(left_out=("seed",))
    assert changes.of_sampling == ()
    assert "other completions" in changes.notes()[0]


def test_sampling_is_left_out_only_with_drop_params():
    with server_that(lambda request: unsupported("temperature") if "temperature" in request else None) as server:
        with pytest.raises(
            InputError, match=r"refuses temperature 0\.7: .*give another --temperature, or --drop_params"
        ):
            tried(server)
        changes = tried(server, drop_params=True)
    assert changes.of_sampling == ("temperature",)
    assert "temperature" in changes.notes()[0]


def test_several_refusals_one_after_the_other():
    def answer(request):
        return next((unsupported(name) for name in ("max_tokens", "seed", "top_p") if name in request), None)

    with server_that(answer) as server:
        changes = tried(server, drop_params=True)
    assert changes == RequestChanges(renamed={"max_tokens": "max_completion_tokens"}, left_out=("seed", "top_p"))
    assert len(server.requests) == 4


def test_a_server_that_refuses_whatever_is_left_is_given_up():
    names = [f"x{number}" for number in range(40)]
    fields = FIELDS | dict.fromkeys(names, 1)
    with server_that(lambda request: next((unsupported(name) for name in names if name in request), None)) as server:
        with pytest.raises(ServingError, match="one parameter after another"):
            tried(server, fields=fields, drop_params=True)
        assert len(server.requests) < 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("max_tokens=64 cannot be greater than max_model_len=32", "does not fit into the server's context"),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 32]", "--max_tokens 64: .*give another value"),
    ],
)
def test_a_limit_that_is_too_large_is_said_before_the_run(words, message):
    with server_that(lambda request: refusing(words)) as server, pytest.raises(InputError, match=message):
        tried(server)
    assert len(server.requests) == 1


def test_a_limit_beyond_the_listed_context_costs_no_request():
    models = [{"id": "m", "owned_by": "vllm", "max_model_len": 64}]
    with server_that(lambda request: None, models=models) as server:
        with pytest.raises(
            InputError, match=r"--max_tokens 64 leaves no room for a prompt: the context .* has 64 tokens"
        ):
            tried(server)
        assert tried(server, fields=FIELDS | {"max_tokens": 63}) == NO_CHANGES
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((402, b'{"error": {"message": "add credits"}}'), "402: add credits"),
        ((200, b'{"error": {"message": "add credits", "code": 402}}'), "add credits"),
        ((401, b'{"error": "bad key sk-canary"}'), r"401: bad key \*\*\*"),
        ((404, b'{"error": "no model m"}'), "404: no model m"),
        ((200, b"<html>Please log in</html>"), "Please log in"),
    ],
)
def test_where_no_request_can_be_answered_the_run_does_not_begin(answer, words):
    endpoint = EndpointConfig(base_urls=(), api_key=SecretStr("sk-canary"))
    with server_that(lambda request: answer) as server, pytest.raises(ServingError, match=words) as raised:
        tried(server, endpoint=endpoint)
    assert server.base_url in str(raised.value)
    assert len(server.requests) == 1


def test_a_server_without_v1_is_told_apart_by_its_words():
    with server_that(lambda request: (404, b'{"detail": "Not Found"}'), listing=(404, b"{}")) as server:
        complete_url = server.base_url.removesuffix("/v1") + "/chat/completions"
        with pytest.raises(ServingError, match=f"404: Not Found .*no /v1, give {complete_url} as --base_url"):
            tried(server)
    refusal = 404, b'{"error": "model m not found"}'
    with server_that(lambda request: refusal) as server, pytest.raises(ServingError, match=r"model m not found$"):
        tried(server)


def test_a_server_without_tools_is_refused():
    fields = FIELDS | {"tools": [{"type": "function"}]}
    with (
        server_that(lambda request: unsupported("tools") if "tools" in request else None) as server,
        pytest.raises(InputError, match=r"accepts no tools: .*have the agent write its commands as text"),
    ):
        tried(server, fields=fields, drop_params=True)


def test_a_server_that_gives_no_tokens_is_found_where_they_are_asked_for():
    with server_that(lambda request: unsupported("logprobs") if "logprobs" in request else None) as server:
        assert tried(server) == NO_CHANGES
        with pytest.raises(InputError, match=r"returns no tokens: .*leave --record_tokens out"):
            tried(server, record_tokens=True)


@pytest.mark.parametrize("answer", [(503, b""), (429, b"{}"), refusing("say something else"), (200, b"{}")])
def test_what_says_nothing_of_the_request_is_left_to_the_run(answer, monkeypatch):
    monkeypatch.setattr("rollmill.inference.client.backoff_s", lambda retry: 0.0)
    with server_that(lambda request: answer) as server:
        assert tried(server) == NO_CHANGES


@pytest.mark.parametrize("answer", [(503, b""), (429, b"{}"), (200, b"{}")])
def test_a_run_goes_on_as_it_was_begun_where_its_server_is_busy(answer, monkeypatch):
    monkeypatch.setattr("rollmill.inference.client.backoff_s", lambda retry: 0.0)
    begun = RequestChanges(renamed={"max_tokens": "max_completion_tokens"}, left_out=("temperature",))
    with server_that(lambda request: answer) as server:
        request = TrialRequest(parameters(), (server.base_url,), ("m",), FIELDS)
        assert find_changes(request, begun=begun) == begun
    assert find_changes(request, begun=begun) == begun, "nor where it is down"
    with server_that(lambda request: None) as server:
        request = TrialRequest(parameters(), (server.base_url,), ("m",), FIELDS)
        assert find_changes(request, begun=begun) == NO_CHANGES


def test_a_server_that_does_not_answer_is_left_to_the_run():
    with RawServer(lambda *_: (200, b"")) as server:
        address = server.base_url
    assert find_changes(TrialRequest(parameters(), (address,), ("m",), FIELDS)) == NO_CHANGES


@pytest.mark.parametrize(
    "listing",
    [(404, b"{}"), (405, b""), (403, b'{"error": "missing scopes: api.model.read"}'), (200, b"<html>welcome</html>"),
     (200, b'{"object": "list", "data": null}'), (200, b'{"data": []}'), (200, b'{"models": [{"name": "m"}]}')],
)  # fmt: skip
def test_without_a_list_the_name_is_found_by_asking(listing):
    def answer(request):
        return (404, b'{"error": "no such model"}') if request["model"] != "the-model" else None

    with server_that(answer, listing=listing) as server:
        changes = tried(server, names=("my-run", "the-model"))
        assert changes == RequestChanges(model="the-model")
        assert (
            use_running_servers((server.base_url,), ("my-run",), parameters(), None, changes=changes).model
            == "the-model"
        )
        assert use_running_servers((server.base_url,), ("my-run",), parameters(), None).model == "my-run"
        with pytest.raises(ServingError, match="404: no such model"):
            tried(server, names=("my-run",))


def test_a_bare_list_of_models_is_read():
    with server_that(lambda request: None, listing=(200, b'[{"id": "m", "object": "model"}]')) as server:
        assert tried(server) == NO_CHANGES
        with pytest.raises(ServingError, match="does not serve 'x' but 'm'"):
            tried(server, names=("x",))


def test_changes_are_made_in_every_request():
    changes = RequestChanges(renamed={"max_tokens": "max_completion_tokens"}, left_out=("seed", "temperature"))
    sent = orjson.loads(changes.apply(orjson.dumps({"model": "m", "max_tokens": 5, "seed": 1, "temperature": 0.5})))
    assert sent == {"model": "m", "max_completion_tokens": 5}
    assert RequestChanges.model_validate_json(changes.model_dump_json()) == changes
    assert NO_CHANGES.model_dump() == {}


@pytest.mark.parametrize(
    ("named", "words", "name"),
    [
        (("seed",), "temperature is fine", "seed"),
        ((), "'top_p' and temperature", "top_p"),
        ((), "`temperature` and `top_p` cannot both be specified", "top_p"),
        ((), "bad temperature", "temperature"),
        ((), "bad temperatures", None),
        (("other",), "bad request", None),
    ],
)
def test_which_parameter_is_refused(named, words, name):
    assert refused_parameter({**FIELDS, "seed": 0}, named, words) == name
