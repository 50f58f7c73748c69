import asyncio
import email.utils
import socket
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from rollmill.errors import ServingError
from rollmill.inference import client as client_module
from rollmill.inference import endpoints as endpoints_module
from rollmill.inference.answers import ToolCall, read_completion
from rollmill.inference.client import (
    ChatClient,
    ClientConfig,
    RequestFailedError,
    backoff_s,
    parse_retry_after,
)
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.sampled_tokens import TokenSource
from rollmill.inference.script import scripted_logprob
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from rollmill.inference.server_errors import server_message
from tests.inference.chat_requests import ask, ask_one, body
from tests.inference.raw_server import RawServer

GOOD = orjson.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]})


@pytest.fixture
def hurried(monkeypatch):
    """Waits a twentieth of the real time; the waits as they would be."""
    waits = []

    def shorter(retry):
        waits.append(backoff_s(retry))
        return waits[-1] / 20

    monkeypatch.setattr(client_module, "backoff_s", shorter)
    monkeypatch.setattr(endpoints_module, "_FIRST_REST_S", 0.05)
    monkeypatch.setattr(endpoints_module, "_LONGEST_REST_S", 1.5)
    return waits


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_completion():
    with ScriptedServer(Script(latency_s=0.05)) as server:
        answer, client = ask_one(server.base_url)
    assert answer.text == "It is <answer>7</answer>."
    assert (answer.reasoning, answer.finish_reason, answer.calls) == (None, "stop", 1)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (16, 7)
    assert answer.latency_s >= 0.05
    assert not client.retries


@pytest.mark.parametrize(
    ("fault", "type_"),
    [
        ("reset", "connection"),
        ("close", "connection"),
        ("garbage", "malformed_response"),
        ("empty", "malformed_response"),
        ("408", "http_408"),
        ("409", "http_409"),
        ("429", "http_429"),
        ("500", "http_500"),
        ("503", "http_503"),
    ],
)
def test_a_fault_that_passes_is_retried(hurried, fault, type_):
    with ScriptedServer(Script(faults=[fault, fault])) as server:
        answer, client = ask_one(server.base_url)
        assert server.requests == 3
    assert answer.text == "It is <answer>7</answer>."
    assert answer.calls == 3
    assert client.retries == {type_: 2}
    assert len(hurried) == 2


def test_a_hanging_request_is_given_up_and_retried(hurried):
    with ScriptedServer(Script(faults=["hang"])) as server:
        answer, client = ask_one(server.base_url, request_timeout_s=0.3)
    assert answer.calls == 2
    assert client.retries == {"timeout": 1}


@pytest.mark.parametrize(
    ("fault", "type_", "words"),
    [
        ("500", "http_500", "answers 500: scripted 500"),
        ("429", "http_429", "answers 429: scripted 429"),
        ("hang", "timeout", "no answer from http://127.0.0.1:.* within 0.2 s"),
        ("reset", "connection", "ClientPayloadError"),
        ("close", "connection", "ServerDisconnectedError"),
        ("garbage", "malformed_response", "not a chat completion .*cut o"),
        ("empty", "malformed_response", "not a chat completion .*choices is empty"),
    ],
)
def test_a_fault_that_stays_fails_after_all_tries(hurried, fault, type_, words):
    with ScriptedServer(Script(always=fault)) as server:
        failure, _ = ask_one(server.base_url, max_retries=2, request_timeout_s=0.2)
        assert server.requests == 3
    assert isinstance(failure, RequestFailedError)
    assert (failure.type, failure.calls) == (type_, 3)
    with pytest.raises(RequestFailedError, match=words):
        raise failure
    assert "\n" not in failure.message


@pytest.mark.parametrize("status", ["400", "401", "404", "422"])
def test_permanent_error_fails_at_once_with_the_server_message(status):
    with ScriptedServer(Script(always=status)) as server:
        failure, client = ask_one(server.base_url)
        assert server.requests == 1
        assert failure.message == f"{server.base_url} answers {status}: scripted {status}"
    assert (failure.type, failure.calls) == (f"http_{status}", 1)
    assert not client.retries


def test_refusals_fail_after_all_tries(hurried, closed_port):
    failure, _ = ask_one(f"http://127.0.0.1:{closed_port}/v1", max_retries=3)
    assert (failure.type, failure.calls) == ("connection", 4)
    assert str(closed_port) in failure.message


def test_no_retries():
    with ScriptedServer(Script(faults=["500"])) as server:
        failure, _ = ask_one(server.base_url, max_retries=0)
    assert failure.calls == 1


def test_twenty_seconds_of_500_cost_no_rollout(hurried):
    with ScriptedServer(Script(failing_s=1.0)) as server:  # at a twentieth of the time
        answers, _ = ask(server.base_url, count=32)
    assert {answer.text for answer in answers} == {"It is <answer>7</answer>."}
    assert min(answer.calls for answer in answers) > 1


def test_one_server_of_two_refuses(hurried, closed_port):
    with ScriptedServer(Script(latency_s=0.01)) as server:
        answers, client = ask(f"http://127.0.0.1:{closed_port}/v1", server.base_url, count=8)
    assert hurried == []  # nobody waited for a back-off
    assert all(answer.text for answer in answers)
    assert client.retries == {"connection": 4}


def test_requests_are_balanced():
    with ScriptedServer(Script(latency_s=0.2)) as first, ScriptedServer(Script(latency_s=0.2)) as second:
        ask(first.base_url, second.base_url, count=10)
        assert (first.requests, second.requests) == (5, 5)


def test_a_server_that_is_gone_for_good():
    async def run():
        pool = EndpointPool([Endpoint("http://a/v1", fatal_error="it died")])
        async with ChatClient(pool, ClientConfig()) as client:
            await client.complete(body())

    with pytest.raises(ServingError, match="http://a/v1: it died"):
        asyncio.run(run())


def test_backoff_sequence_and_jitter():
    for retry, longest in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
        drawn = [backoff_s(retry) for _ in range(300)]
        assert 0.75 * longest <= min(drawn) < 0.8 * longest
        assert 0.95 * longest < max(drawn) <= longest
    assert backoff_s(10**6) <= 30


@pytest.fixture
def slept(monkeypatch):
    """The seconds that the client slept, or would have: they pass on its clock alone."""
    seconds = []
    real = asyncio.sleep

    async def sleep(time_s):
        seconds.append(time_s)
        await real(0)

    monkeypatch.setattr(client_module.asyncio, "sleep", sleep)
    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: sum(seconds)))
    return seconds


def test_the_client_waits_as_long_as_the_backoff_says(slept, monkeypatch):
    monkeypatch.setattr(client_module.random, "uniform", lambda low, high: high)
    with ScriptedServer(Script(always="429")) as server:
        failure, _ = ask_one(server.base_url, max_retries=7)
    assert failure.calls == 8
    assert slept == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("status", ["429", "503"])
def test_retry_after_in_seconds_is_honoured(slept, status):
    with ScriptedServer(Script(faults=[status], retry_after="130")) as server:
        answer, _ = ask_one(server.base_url)
    assert 130 <= slept[0] < 131
    assert answer.calls == 2


def test_retry_after_as_a_date_is_honoured(slept):
    then = datetime.now(UTC) + timedelta(seconds=500)
    with ScriptedServer(Script(faults=["429"], retry_after=email.utils.format_datetime(then, usegmt=True))) as server:
        ask_one(server.base_url)
    assert 400 < slept[0] < 501


def test_latency_is_that_of_the_last_try(slept):
    with ScriptedServer(Script(faults=["429", "429"])) as server:
        answer, _ = ask_one(server.base_url)
    assert answer.latency_s == 0 < sum(slept)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("-3", 0),
        ("1e9", 600),
        ("inf", 600),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2315 07:28:00 GMT", 600),
    ],
)
def test_reading_retry_after(value, seconds):
    assert parse_retry_after(value) == seconds


@given(st.text() | st.from_regex(r"\w{3}, \d{1,2} \w{3} \d{1,5} \d{1,2}:\d\d:\d\d [+-]?\w{1,5}"))
def test_reading_retry_after_never_fails(value):
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds <= 600


def test_api_key_is_sent_but_never_shown():
    key = "sk-very-secret"

    def answer(headers, _):
        return 401, orjson.dumps({"error": {"message": f"Incorrect API key provided: {headers['Authorization']}"}})

    with RawServer(answer) as server:
        failure, client = ask_one(server.base_url, api_key=SecretStr(key))
    assert server.headers[0]["Authorization"] == f"Bearer {key}"
    assert server.headers[0]["Content-Type"] == "application/json"
    assert "Incorrect API key provided" in failure.message
    for shown in (failure.message, str(failure), repr(failure), repr(client.__dict__["_endpoints"])):
        assert key not in shown


def test_no_key_no_header():
    with RawServer(lambda *_: (200, GOOD)) as server:
        ask_one(server.base_url)
    assert "Authorization" not in server.headers[0]


def test_a_prompt_of_10_mb():
    prompt = "x" * 10_000_000
    with ScriptedServer(Script()) as server:
        answer, _ = ask_one(server.base_url, content=body(messages=[{"role": "user", "content": prompt}]))
        assert server.bodies[0]["messages"][0]["content"] == prompt
    assert answer.calls == 1


def test_connection_closed_by_the_server_is_not_reused():
    with RawServer(lambda *_: (200, GOOD, {"Connection": "close"})) as server:
        answers, client = ask(server.base_url, count=5, together=False)
    assert len(answers) == 5
    assert not client.retries


def completion(message, **fields):
    return read_completion(orjson.dumps({"choices": [{"message": message, "finish_reason": "length"} | fields]}))


def test_a_thinking_model_that_ran_into_its_limit():
    assert completion({"content": None, "reasoning": "hm"})[:3] == ("", "hm", "length")
    assert completion({"content": None, "reasoning_content": "hm"})[:3] == ("", "hm", "length")
    assert completion({"content": "4", "reasoning": "hm"})[:3] == ("4", "hm", "length")
    assert completion({"content": "4", "reasoning": None}, finish_reason=None)[:3] == ("4", None, None)
    assert completion({"reasoning": "hm"})[:3] == ("", "hm", "length")


@pytest.mark.parametrize(
    ("message", "reasoning", "key"),
    [
        ({"reasoning": "a"}, "a", "reasoning"),
        ({"reasoning_content": "a"}, "a", "reasoning_content"),
        ({"reasoning": "a", "reasoning_content": "a"}, "a", "reasoning"),
        ({"reasoning": None, "reasoning_content": "a"}, "a", "reasoning_content"),
        ({"thinking": "a"}, "a", "thinking"),
        ({"reasoning": {"content": "a"}}, "a", "reasoning"),
        ({"reasoning": [{"type": "summary", "text": "a"}, {"text": "b"}]}, "ab", "reasoning"),
        ({"reasoning": {"a": 1}}, None, "reasoning_content"),
        ({"reasoning": ""}, None, "reasoning_content"),
        ({"reasoning": 7}, None, "reasoning_content"),
    ],
)
def test_thoughts_of_any_name_and_form(message, reasoning, key):
    answer = completion({"content": "4"} | message)
    assert (answer.text, answer.reasoning, answer.reasoning_key) == ("4", reasoning, key)


def test_thoughts_among_the_parts_of_a_content():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "2+3"}]}, {"type": "text", "text": "5"}]
    assert completion({"content": parts})[:2] == ("5", "2+3")


@pytest.mark.parametrize(
    ("message", "only"),
    [
        ({"content": None, "reasoning": "hm"}, True),
        ({"content": " \n", "reasoning": "hm"}, True),
        ({"content": "5", "reasoning": "hm"}, False),
        ({"content": None, "reasoning": "hm", "tool_calls": [{"function": {"name": "f"}}]}, False),
        ({"content": ""}, False),
    ],
)
def test_an_answer_of_thoughts_alone(message, only):
    assert completion(message).only_reasoning is only


@pytest.mark.parametrize("reason", ["content_filter", "stop", "length"])
def test_no_content_but_a_reason_is_an_empty_completion(reason):
    assert completion({"content": None, "refusal": "no"}, finish_reason=reason)[:3] == ("", None, reason)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"completion_tokens": 0}])
def test_usage_may_be_missing(usage):
    content = orjson.dumps({"choices": [{"message": {"content": ""}}], "usage": usage})
    assert read_completion(content)[3].model_dump() == {"prompt_tokens": 0, "completion_tokens": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {}}]}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": ["parts"]}}]}',
        b"\xff\xfe",
    ],
)
def test_invalid_completion_is_a_malformed_response(content):
    with RawServer(lambda *_: (200, content)) as server:
        failure, _ = ask_one(server.base_url, max_retries=0)
    assert isinstance(failure, RequestFailedError)
    assert failure.type == "malformed_response"
    assert failure.message.startswith("not a chat completion")


def test_lone_surrogates_are_data():
    text, reasoning, *_ = read_completion(
        rb'{"choices": [{"message": {"content": "a\ud800b \u00e9", "reasoning": "\udfff"}}]}'
    )
    assert (text, reasoning) == ("a?b é", "?")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": ["body"], "msg": "bad"}]}', "[{'loc': ['body'], 'msg': 'bad'}]"),
        (b"<html>\xff</html>", "\ufffd"),
        (b"[1]", "[1]"),
        (b'{"error": null}', '{"error": null}'),
        (b"", "(empty)"),
    ],
)
def test_the_servers_own_words(content, words):
    assert server_message(content) == words


def tool_call(**function):
    return {"id": "a", "type": "function", "function": function}


def test_tool_calls_are_read():
    called = [tool_call(name="bash", arguments='{"command": "ls"}'), tool_call(name="bash", arguments="{")]
    read = completion({"content": None, "tool_calls": called})
    assert read[0] == ""
    assert read.tool_calls == (ToolCall("a", "bash", '{"command": "ls"}'), ToolCall("a", "bash", "{"))
    both = completion({"content": "so", "tool_calls": called[:1]})
    assert (both.text, both.tool_calls) == ("so", read.tool_calls[:1])
    assert completion({"tool_calls": called})[:1] == ("",)


@pytest.mark.parametrize("none", [None, [], ...])
def test_no_tool_calls(none):
    message = {"content": "x"} | ({} if none is ... else {"tool_calls": none})
    assert completion(message).tool_calls == ()
    with pytest.raises(Exception, match="not a chat completion"):
        completion(message | {"content": None}, finish_reason=None)


@pytest.mark.parametrize(
    ("called", "calls"),
    [
        ([tool_call(name="bash", arguments={"command": "ls"})], [("a", "bash", '{"command":"ls"}')]),
        ([tool_call(name=None, arguments=None)], [("a", "", "")]),
        ([{"function": {}}], [("", "", "")]),
        ([{"id": 3, "function": {"name": 4, "arguments": 5}}], [("3", "4", "5")]),
        ([{"id": "a"}, "ls", 7, None], [("", "", '{"id":"a"}'), ("", "", "ls"), ("", "", "7"), ("", "", "")]),
        ({"name": "bash"}, [("", "", '{"name":"bash"}')]),
        ("ls", [("", "", "ls")]),
    ],
)
def test_malformed_tool_call_is_kept_and_no_failure(called, calls):
    assert completion({"content": None, "tool_calls": called}).tool_calls == tuple(ToolCall(*call) for call in calls)


def test_tool_calls_arrive():
    answer = ScriptedAnswer(
        content=None, tool_calls=[tool_call(name="bash", arguments="{}")], finish_reason="tool_calls"
    )
    script = Script(conversations=[Conversation(answers=[answer])])
    with ScriptedServer(script) as server:
        answered, _ = ask_one(server.base_url)
    assert (answered.text, answered.tool_calls) == ("", (ToolCall("a", "bash", "{}"),))
    assert (answered.finish_reason, answered.calls) == ("tool_calls", 1)


def test_tokens_are_asked_for_and_read():
    source = TokenSource("0123456789abcdef", "processed_logprobs")
    with ScriptedServer(Script(completion="yes")) as server:
        answer, _ = ask_one(server.base_url, token_source=source)
        (body,) = server.bodies
    assert (body["return_token_ids"], body["logprobs"]) == (True, True)
    assert (bytes(list(answer.tokens.ids)), answer.tokens.source) == (b"yes</>", source)
    assert list(answer.tokens.logprobs) == [scripted_logprob(id_) for id_ in b"yes</>"]


def test_tokens_are_not_asked_for_by_themselves():
    with ScriptedServer(Script()) as server:
        answer, _ = ask_one(server.base_url)
        (body,) = server.bodies
    assert answer.tokens is None
    assert "logprobs" not in body


def test_answers_without_the_tokens_that_were_asked_for_are_counted(caplog):
    with RawServer(lambda *_: (200, GOOD)) as server:
        answer, _ = ask_one(server.base_url, token_source=TokenSource(None, None))
    assert (answer.text, answer.tokens) == ("yes", None)
    assert "1 answers came without token ids" in caplog.text


@pytest.mark.parametrize(
    ("choice", "stop_text"),
    [
        ({"stop_reason": "END"}, "END"),
        ({"matched_stop": "END"}, "END"),
        ({"stop_reason": None}, None),
        ({"stop_reason": 151645}, None),
        ({"matched_stop": 2}, None),
        ({}, ""),
        ({"stop_reason": "eos"}, ""),
        ({"stop_reason": "END", "finish_reason": "length"}, None),
    ],
)
def test_the_stop_text_that_ended_an_answer(choice, stop_text):
    answer = completion({"content": "a"}, **{"finish_reason": "stop"} | choice)
    assert answer.stop_text(["STOP", "END"]) == stop_text
    assert answer.stop_text([]) is None
