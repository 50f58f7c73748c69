import hashlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.agents.mini_swe import FormatError
from rollmill.agents.model import ChatModel, ContextLengthExceeded, chat_fields, to_request_message, turn_seed
from rollmill.inference.answers import Completion, ToolCall
from rollmill.inference.client import RequestFailedError
from rollmill.records import Usage
from tests.agents.scripted_agents import bash, text_settings, tool_settings

MODES = {"text": text_settings(), "tools": tool_settings()}
FIRST = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


class Answers:
    """A client with fixed answers."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.bodies = []

    def complete(self, body):
        self.bodies.append(orjson.loads(body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer_of(text="", *calls, finish="stop", reasoning=None, requests=1):
    usage = Usage(prompt_tokens=10, completion_tokens=3)
    return Completion(text, reasoning, finish, usage, 0.1, requests, tuple(ToolCall(*call) for call in calls))


def model(how, *answers, seed=5):
    return ChatModel(Answers(*answers), how, model="m", seed=seed)


def refused(how, answer):
    with pytest.raises(FormatError) as error:
        model(how, answer).query(FIRST)
    return error.value.messages


def test_tool_options_are_sent_only_with_tools():
    request = {"temperature": 0.5, "parallel_tool_calls": True}
    assert chat_fields(text_settings(request=request)) == {"temperature": 0.5}
    with_tools = chat_fields(tool_settings(request=request))
    assert (with_tools["parallel_tool_calls"], len(with_tools["tools"])) == (True, 1)


def test_command_in_a_text_answer():
    chat = model(
        text_settings(request={"temperature": 0.5, "seed": 1, "tool_choice": "auto"}),
        answer_of(bash("ls -l"), requests=3),
    )
    assert chat.query(FIRST) == {
        "role": "assistant",
        "content": bash("ls -l"),
        "finish_reason": "stop",
        "extra": {"reasoning_key": "reasoning_content", "actions": [{"command": "ls -l"}]},
    }
    assert chat._client.bodies == [{"temperature": 0.5, "model": "m", "messages": FIRST, "seed": turn_seed(5, 1)}]
    assert (chat.turns, chat.requests_sent, chat.finish_reason) == (1, 3, "stop")


def test_calls_and_usage_are_summed_and_seeds_differ():
    failure = RequestFailedError("http_500", "no", 4)
    chat = model(
        text_settings(), answer_of(bash("a"), requests=2), answer_of("no action"), answer_of(bash("b")), failure
    )
    chat.query(FIRST)
    with pytest.raises(FormatError):
        chat.query(FIRST)
    chat.query(FIRST)
    with pytest.raises(RequestFailedError):
        chat.query(FIRST)
    assert chat.usage == Usage(prompt_tokens=30, completion_tokens=9)
    assert (chat.turns, chat.requests_sent) == (4, 8)
    assert [body["seed"] for body in chat._client.bodies] == [turn_seed(5, call) for call in (1, 2, 3, 4)]


def test_seeds_of_calls():
    assert turn_seed(0, 1) == int(hashlib.sha256(b"[0,1]").hexdigest()[:8], 16) >> 1 == 589272268
    seeds = {turn_seed(seed, call) for seed in range(30) for call in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_tool_calls():
    calls = [("a", "bash", '{"command": "ls"}'), ("", "bash", '{"command": "pwd"}')]
    chat = model(
        tool_settings(request={"tool_choice": "auto"}),
        answer_of("I look.", *calls, finish="tool_calls", reasoning="hm"),
    )
    answer = chat.query(FIRST)
    assert answer == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}},
            {"id": "call_1_1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "pwd"}'}},
        ],
        "finish_reason": "tool_calls",
        "extra": {
            "reasoning_key": "reasoning_content",
            "actions": [{"command": "ls", "tool_call_id": "a"}, {"command": "pwd", "tool_call_id": "call_1_1"}],
        },
    }
    (body,) = chat._client.bodies
    assert body["tools"][0]["function"]["name"] == "bash"
    assert body["tool_choice"] == "auto"
    assert to_request_message(answer).keys() == {"role", "content", "tool_calls", "reasoning_content"}
    assert to_request_message(answer, drop_reasoning=True).keys() == {"role", "content", "tool_calls"}


@pytest.mark.parametrize("text", ["nothing", bash("a") + bash("b"), ""])
def test_text_without_exactly_one_command_is_a_format_error(text):
    answer, errors = refused(text_settings(), answer_of(text))
    assert answer == {
        "role": "assistant",
        "content": text,
        "finish_reason": "stop",
        "extra": {"reasoning_key": "reasoning_content"},
    }
    assert (errors["role"], errors["extra"]["interrupt_type"]) == ("user", "FormatError")
    assert f"Expected exactly 1 action, found {text.count('mswea')}." in errors["content"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("bash", "{", "Error parsing tool call arguments"),
        ("bash", "", "Error parsing tool call arguments"),
        ("bash", "[" * 100_000, "Error parsing tool call arguments"),
        ("bash", "9" * 5000, "Error parsing tool call arguments"),
        ("bash", "{}", "Missing 'command' argument"),
        ("bash", "[]", "Missing 'command' argument"),
        ("bash", "null", "Missing 'command' argument"),
        ("bash", '{"command": ["ls"]}', "The 'command' argument must be a string."),
        ("bash", '{"command": null}', "The 'command' argument must be a string."),
        ("python", '{"command": "ls"}', "Unknown tool 'python'."),
        ("", "", "Unknown tool ''."),
    ],
)
def test_malformed_tool_calls_are_recorded_and_answered(name, arguments, words):
    good = ("a", "bash", '{"command": "ls"}')
    answer, *errors = refused(tool_settings(), answer_of("", good, ("b", name, arguments)))
    assert answer["tool_calls"][1]["function"] == {"name": name, "arguments": arguments}
    assert [(item["role"], item["tool_call_id"]) for item in errors] == [("tool", "a"), ("tool", "b")]
    assert all(words in item["content"] for item in errors)
    for call in to_request_message(answer)["tool_calls"]:
        assert isinstance(orjson.loads(call["function"]["arguments"]), dict)


def test_answer_without_tool_call_is_a_format_error():
    answer, errors = refused(tool_settings(), answer_of("I am done."))
    assert answer["content"] == "I am done."
    assert "tool_calls" not in answer
    assert errors["role"] == "user"
    assert "No tool calls found in the response." in errors["content"]


def test_tool_calls_are_ignored_in_text_mode():
    answer, _ = refused(text_settings(), answer_of("", ("a", "bash", '{"command": "ls"}')))
    assert "tool_calls" not in answer


@pytest.mark.parametrize("mode", ["text", "tools"])
@pytest.mark.parametrize("finish", ["length", "MAX_TOKENS", "model_length"])
def test_truncated_answer_is_explained_to_the_model(mode, finish):
    *_, errors = refused(MODES[mode], answer_of("and then", finish=finish))
    assert "reached the output token limit (finish_reason=length)" in errors["content"]


def test_format_error_template_gets_all_variables():
    *_, errors = refused(tool_settings(mode="text"), answer_of("x", finish="tool_calls"))
    assert "reached the output token limit" in errors["content"]


@pytest.mark.parametrize(
    ("type_", "words", "too_long"),
    [
        ("http_400", "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", True),
        (
            "http_400",
            "'max_tokens' or 'max_completion_tokens' is too large: 80. This model's maximum context length",
            True,
        ),
        ("http_400", "The decoder prompt (length 9) is longer than the maximum model length of 8.", True),
        ("http_400", "The input (900 tokens) is longer than the model's context length (800 tokens).", True),
        ("http_400", "the request exceeds the available context size, try increasing it", True),
        ("http_400", "error code: context_length_exceeded", True),
        ("http_422", "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", True),
        ("http_413", "prompt is too long: 9 tokens > 8 maximum", True),
        ("http_400", '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', False),
        ("http_500", "maximum context length", False),
        ("http_500", "the request exceeds the available context size (4096 tokens)", True),
        ("timeout", "maximum context length", False),
    ],
)
def test_too_long_requests_are_recognized(type_, words, too_long):
    assert RequestFailedError(type_, f"http://h/v1 answers 400: {words}", 1).too_long == too_long


def test_context_overflow_ends_the_agent_except_at_the_first_prompt():
    failure = RequestFailedError("http_400", "maximum context length is 9", 1)
    chat = model(text_settings(), answer_of(bash("a")), failure)
    chat.query(FIRST)
    with pytest.raises(ContextLengthExceeded) as end:
        chat.query(FIRST)
    assert end.value.messages[0]["extra"]["exit_status"] == "ContextLengthExceeded"
    with pytest.raises(RequestFailedError):
        model(text_settings(), failure).query(FIRST)


@settings(deadline=None)
@given(st.text(), st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=3), st.sampled_from(["text", "tools"]))
def test_any_completion_is_an_action_or_a_format_error(text, calls, mode):
    chat = model(MODES[mode], answer_of(text, *calls))
    try:
        messages = [chat.query(FIRST)]
    except FormatError as error:
        messages = list(error.messages)
        assert len(messages) == 1 + max(1, len(calls) if mode == "tools" else 0)
    assert messages[0]["content"] == text
    for call in to_request_message(messages[0]).get("tool_calls", []):
        assert isinstance(orjson.loads(call["function"]["arguments"]), dict)
