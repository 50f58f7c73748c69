"""Parsing of servers' responses: a completion, an empty completion, or a failure with its message."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.inference.answers import Completion, ToolCall, read_completion
from rollmill.inference.sampled_tokens import UNKNOWN_SOURCE
from rollmill.inference.server_errors import FailedAnswerError, is_too_long, read_error
from rollmill.records import is_cut_off


def answer(message=None, finish_reason="stop", choice=None, **beside):
    message = {"content": "yes"} if message is None else message
    return {"choices": [{"message": message, "finish_reason": finish_reason} | (choice or {})], **beside}


def read(body, **more):
    return read_completion(body if isinstance(body, bytes) else orjson.dumps(body), **more)


def failure(body):
    with pytest.raises(FailedAnswerError) as raised:
        read(body)
    return raised.value


@pytest.mark.parametrize(
    ("body", "type_", "final", "words"),
    [
        ({"error": {"message": "slow down", "code": 429}}, "http_429", False, "slow down"),
        ({"error": {"message": "slow down", "code": "429"}, "choices": None}, "http_429", False, "slow down"),
        ({"error": {"message": "add more", "code": 402}}, "http_402", True, "add more"),
        ({"error": {"message": "pay", "type": "insufficient_quota"}}, "insufficient_quota", True, "pay"),
        ({"error": {"message": "busy", "type": "overloaded_error"}}, "overloaded_error", False, "busy"),
        ({"error": {"message": "no", "code": "invalid_api_key"}}, "invalid_api_key", True, "no"),
        ({"error": "it broke"}, "server_error", False, "it broke"),
        ({"error": {"message": "the context window is full"}}, "server_error", True, "context window"),
        ({"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "OOM"}}}, "http_502", False,
         "Provider returned error: OOM"),
        ({"object": "error", "message": "no model m", "code": 404}, "http_404", True, "no model m"),
        ({"detail": "not here", "status": 503}, "http_503", False, "not here"),
        (answer(choice={"error": {"code": 502, "message": "died"}}, finish_reason="error"), "http_502", False, "died"),
        (answer(error={"code": 500, "message": "died"}), "http_500", False, "died"),
        ([{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}], "http_503", False, "busy"),
        ({"statusCode": 429, "message": "slow down"}, "http_429", False, "slow down"),
        ({"__type": "com.amazon#ThrottlingException", "message": "slow"}, "throttling_exception", False, "slow"),
        ({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow"}, "request_limit_exceeded", False, "slow"),
        ({"error": {"code": "InvalidApiKey", "message": "no"}}, "invalid_api_key", True, "no"),
        ({"error": {"code": "429 Too Many Requests", "message": "no"}}, "http_429", False, "no"),
        ({"error": {"message": "Error code: 402 - add more"}}, "http_402", True, "add more"),
        ({"error": "Unexpected endpoint or method. (POST /x). Returning 200 anyway"}, "server_error", True, "POST /x"),
        ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "server_error",
         True, "balance"),
        ({"success": False, "errors": [{"code": 7009, "message": "Upstream gone"}]}, "server_error", False,
         "inside the answer: Upstream gone"),
        ({"message": "Internal server error"}, "server_error", False, "Internal server error"),
    ],
)  # fmt: skip
def test_an_error_inside_a_good_answer_is_a_failure(body, type_, final, words):
    failed = failure(body)
    assert (failed.type, failed.final) == (type_, final)
    assert words in failed.message


@pytest.mark.parametrize("none", [None, {}, "", "None", "null", False, [], {"code": 0, "message": ""}, {"code": "200"}])
def test_an_empty_error_is_none(none):
    assert read(answer(error=none, choice={"error": none})).text == "yes"


@pytest.mark.parametrize(
    "reason",
    [
        "error",
        "ERROR",
        "FinishReason.ERROR",
        "network_error",
        "abort",
        "cancelled",
        "insufficient_system_resource",
        "load",
        "preempted",
        "rate_limit",
        "out_of_memory",
        "request_timeout",
        "error: upstream",
    ],
)
@pytest.mark.parametrize("text", [None, "It is <answ"])
def test_an_answer_that_broke_off_on_the_way_is_no_completion(reason, text):
    failed = failure(answer({"content": text}, reason))
    assert (failed.type, failed.final) == ("server_error", False)
    assert reason in failed.message


@pytest.mark.parametrize(
    "reason", ["stop", "tool_calls", "length", "content_filter", "ERROR_LIMIT", "eos", "error_toxic", "pause_turn"]
)
def test_other_finish_reasons_are_answers(reason):
    assert read(answer(finish_reason=reason)).finish_reason == reason


@pytest.mark.parametrize(
    ("given_as", "name", "cut_off"),
    [(None, None, False), ("", None, False), (2, "2", False), ({"type": "length", "length": 9}, "length", True),
     (["length"], None, False), (True, None, False), ({"type": 3}, None, False)],
)  # fmt: skip
def test_a_finish_reason_of_any_form(given_as, name, cut_off):
    finish_reason = read(answer(finish_reason=given_as)).finish_reason
    assert (finish_reason, is_cut_off(finish_reason)) == (name, cut_off)


@pytest.mark.parametrize(
    ("status", "body", "final"),
    [
        (429, {"error": {"message": "slow down", "type": "rate_limit_exceeded"}}, False),
        (429, {"error": {"message": "your quota", "code": "insufficient_quota"}}, True),
        (429, {"error": {"message": "quota; retry in 8 s", "status": "RESOURCE_EXHAUSTED", "code": 429}}, False),
        (429, {"error": {"message": "Insufficient balance"}}, True),
        (429, {"error": {"message": "pay", "code": "billing_not_active"}}, True),
        (429, {"error": {"message": "Budget has been exceeded!"}}, True),
        (429, {"error": {"message": "The engine is overloaded", "type": "engine_overloaded_error"}}, False),
        (400, {"__type": "ThrottlingException", "message": "Slow down"}, False),
        (400, {"error": "The model has crashed without additional information."}, False),
        (400, {"error": "The model is overloaded: the context length is 5"}, True),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, False),
        (413, {"error": {"message": "Request too large", "code": "rate_limit_exceeded"}}, True),
        (498, {"error": {"message": "Flex tier capacity exceeded", "code": "capacity_exceeded"}}, False),
        (501, {"error": {"message": "not supported", "type": "not_supported_error"}}, True),
        (402, {}, True),
        (401, {}, True),
        (403, {}, True),
        (404, {"error": "no model"}, True),
        (408, {}, False),
        (425, {}, False),
        (500, {"error": "CUDA error"}, False),
        (500, {"error": {"message": "exceeds the available context size", "type": "exceed_context_size_error"}}, True),
        (503, {}, False),
        (529, {"error": {"type": "overloaded_error"}}, False),
    ],
)
def test_whether_the_same_request_would_fail_again(status, body, final):
    failed = read_error(status, orjson.dumps(body))
    assert (failed.type, failed.final) == (f"http_{status}", final)


@pytest.mark.parametrize(
    "words",
    [
        "Input is too long for requested model.",
        "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000",
        "Please reduce the length of the messages or completion.",
    ],
)
def test_words_for_a_prompt_that_is_too_long(words):
    assert is_too_long(words)


def test_an_empty_account_is_said_in_the_words():
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    assert read_error(429, orjson.dumps(body)).message == "You exceeded your current quota (insufficient_quota)"


REFUSED_SEED = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}


@pytest.mark.parametrize("body", [REFUSED_SEED, {"object": "error", "message": REFUSED_SEED}])
def test_the_fields_that_a_validation_names(body):
    failed = read_error(422, orjson.dumps(body))
    assert failed.named == ("seed",)
    assert "seed" in failed.message


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html><head><style>p {}</style></head><body><p>Please log in</p></body></html>",
        b"\n <html><title>x</title><script>if (a < b) {}</script> Please log in",
        b"<center><h1>Please&nbsp;log in</h1></center>",
    ],
)
def test_a_page_is_a_failure_with_its_words(page):
    failed = failure(page)
    assert (failed.type, failed.final) == ("malformed_response", True)
    assert "Please log in" in failed.message.replace("\\xa0", " ").replace("\xa0", " ")
    assert "<" not in read_error(502, page).message


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", None),
        ([{"type": "output_text", "text": "a"}], "a", None),
        ([{"text": "a"}], "a", None),
        ({"type": "text", "text": "a"}, "a", None),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}], "a", "hm"),
        ([{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}], "a", None),
    ],
)
def test_content_as_parts(content, text, reasoning):
    assert read(answer({"content": content}))[:2] == (text, reasoning)


def test_a_refusal_stands_beside_the_text():
    for message in (
        {"content": None, "refusal": "I won't."},
        {"content": [{"type": "refusal", "refusal": "I won't."}]},
    ):
        assert (read(answer(message)).text, read(answer(message)).refusal) == ("", "I won't.")


@pytest.mark.parametrize("choice", [{"finish_reason": "length"}, {"message": None, "finish_reason": "stop"}])
def test_a_missing_message_is_an_empty_completion(choice):
    assert read({"choices": [choice]})[:3] == ("", None, choice["finish_reason"])


def test_the_first_choice_counts_wherever_it_stands():
    choices = [{"index": 1, "message": {"content": "no"}}, {"index": 0, "message": {"content": "yes"}}]
    assert read({"choices": choices}).text == "yes"
    assert read({"choices": [{"message": {"content": "yes"}}, None]}).text == "yes"
    assert "choices is empty" in failure({"choices": []}).message


def test_a_call_in_the_older_form():
    message = {"content": None, "function_call": {"name": "bash", "arguments": '{"a": 1}'}}
    assert read(answer(message, "function_call")).tool_calls == (ToolCall("", "bash", '{"a": 1}'),)
    assert read(answer({"content": "yes", "function_call": None})).tool_calls == ()


def test_thoughts_that_stand_in_details_alone():
    details = [{"type": "reasoning.text", "text": "hm"}, {"type": "reasoning.encrypted", "data": "x"}]
    completion = read(answer({"content": "yes", "reasoning": None, "reasoning_details": details}))
    assert (completion.reasoning, completion.reasoning_key) == ("hm", "reasoning")


def test_the_finish_reason_of_the_server_behind_a_gateway():
    assert read(answer(finish_reason=None, choice={"native_finish_reason": "MAX_TOKENS"})).finish_reason == "MAX_TOKENS"


def test_an_answer_in_one_event_without_its_frame():
    assert read({"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}).text == "yes"


def test_the_text_of_a_completion_that_is_no_chat():
    assert read({"choices": [{"text": "yes", "finish_reason": "stop"}]}).text == "yes"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ([], (0, 0)),
        ({"prompt_tokens": "10", "completion_tokens": 12.0}, (10, 12)),
        ({"prompt_tokens": "many", "completion_tokens": -1}, (0, 0)),
        ({"prompt_tokens": 1e300, "completion_tokens": 2**63}, (0, 0)),
        ({"prompt_tokens": {"a": 1}, "completion_tokens": True}, (0, 0)),
    ],
)
def test_usage_of_any_form(usage, counts):
    read_usage = read(answer(usage=usage)).usage
    assert (read_usage.prompt_tokens, read_usage.completion_tokens) == counts


GOOD = orjson.dumps(answer({"content": "café"}))


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + GOOD,
        b"\n\n  \n" + GOOD,
        b": keep-alive\n\n: keep-alive\n\n" + GOOD,
        GOOD + b"\n\ndata: [DONE]\n\n",
        GOOD + b"\n\0",
        GOOD[:-1] + b', "system_fingerprint": NaN, "x": Infinity}',
        GOOD.decode().encode("latin-1"),
        "\ufeff".encode("utf-16-le") + GOOD.decode().encode("utf-16-le"),
    ],
)
def test_what_stands_around_an_answer(body):
    assert read(body).text == "café"


def test_the_encoding_that_the_head_names():
    assert read(GOOD.decode().encode("cp1252").replace(b"caf\xe9", b"caf\x80"), charset="cp1252").text == "caf€"
    assert read(GOOD.decode().encode("latin-1"), charset="no-such").text == "café"


@pytest.mark.parametrize("rest", [GOOD, b"{}", b"x"])
def test_two_answers_are_none(rest):
    assert failure(GOOD + rest).type == "malformed_response"


def events(*choices, end="data: [DONE]\n\n", **beside):
    lines = [b"data: " + orjson.dumps({"choices": [choice], **beside}) for choice in choices]
    return b"\r\n\r\n".join([b": keep-alive", *lines, end.encode()])


def test_a_stream_that_nobody_asked_for_is_put_together():
    body = events(
        {"index": 0, "delta": {"role": "assistant", "reasoning": "h"}},
        {"index": 0, "delta": {"reasoning": "m", "content": ""}},
        {"index": 0, "delta": {"content": "a\u2028"}},
        {"index": 0, "delta": {"content": "b"}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "length"},
        usage={"completion_tokens": 3},
    )
    read_answer = read(body)
    assert read_answer[:3] == ("a\u2028b", "hm", "length")
    assert read_answer.usage.completion_tokens == 3


def test_tool_calls_of_a_stream():
    piece = {"index": 0, "id": "c1", "function": {"name": "bash", "arguments": '{"a'}}
    body = events(
        {"delta": {"tool_calls": [piece]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '": 1}'}}]}, "finish_reason": "tool_calls"},
        end="",
    )
    assert read(body).tool_calls == (ToolCall("c1", "bash", '{"a": 1}'),)


def test_a_stream_that_breaks_off_or_fails_is_a_failure():
    begun = {"delta": {"content": "It is"}}
    assert "breaks off" in failure(events(begun, end="")).message
    assert failure(events(begun, end='data: {"error": {"code": 502, "message": "died"}}\n\n')).type == "http_502"
    assert failure(events(begun | {"finish_reason": "error"})).type == "server_error"


TEXTS = st.sampled_from(["", "a", "stop", "error", "length", "429", "\ud800", "\u2028"]) | st.text(max_size=5)
NAMES = (
    "choices message content error code type finish_reason delta usage prompt_tokens reasoning refusal tool_calls "
    "function arguments text detail index thinking status metadata raw"
)
KEYS = st.sampled_from(NAMES.split())
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def is_read(content):
    try:
        completion = read_completion(content, UNKNOWN_SOURCE)
    except FailedAnswerError:
        return
    assert isinstance(completion, Completion)
    assert isinstance(completion.text, str)
    assert completion.finish_reason is None or isinstance(completion.finish_reason, str)
    orjson.dumps([completion.text, completion.reasoning, completion.refusal, completion.usage.model_dump()])


@given(BODIES, st.sampled_from(["", "data: ", "\ufeff"]))
def test_any_json_is_an_answer_or_a_failure(body, before):
    is_read((before + json.dumps(body)).encode("utf-8", "replace"))


@given(BODIES, BODIES, BODIES)
def test_any_choice_is_an_answer_or_a_failure(message, finish_reason, beside):
    choice = {"message": message, "finish_reason": finish_reason}
    is_read(json.dumps({"choices": [choice], "usage": beside, "error": None}).encode())
    is_read(json.dumps({"choices": [choice | {"error": beside}]}).encode())
    is_read(b"data: " + json.dumps({"choices": [{"delta": message, "finish_reason": "stop"}]}).encode())


@given(st.binary(max_size=60), st.sampled_from([200, 400, 429, 500]))
def test_any_bytes_are_an_answer_or_a_failure(content, status):
    is_read(content)
    assert read_error(status, content).type == f"http_{status}"
