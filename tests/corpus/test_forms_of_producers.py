"""Any conversation, written in the form of each producer, is read as the same messages."""

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollmill.corpus.scan import Scan
from tests.corpus.test_normalize_messages import conversation

TEXT = st.text(st.sampled_from("aé \n\"\\{['"), min_size=1, max_size=6).filter(str.strip)
ARGUMENTS = st.dictionaries(st.sampled_from(["path", "n", "deep"]), TEXT | st.integers(-9, 9) | st.lists(st.booleans()))
CALLS = st.lists(st.tuples(st.sampled_from(["read", "write"]), ARGUMENTS), max_size=2)
TURNS = st.lists(st.tuples(TEXT, st.none() | TEXT, CALLS), min_size=1, max_size=3)


def openai(turns, *, most_calls=2):
    """A conversation in OpenAI's form: of each turn the answer, its thoughts and calls, and the results."""
    messages = [{"role": "user", "content": "Go."}]
    for number, (content, thoughts, calls) in enumerate(turns):
        turn = {"role": "assistant", "content": content}
        if thoughts:
            turn["reasoning_content"] = thoughts
        built = [
            {"id": f"c{number}{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(calls[:most_calls])
        ]
        messages.append(turn | ({"tool_calls": built} if built else {}))
        messages += [{"role": "tool", "content": f"of {each['id']}", "tool_call_id": each["id"]} for each in built]
        messages.append({"role": "user", "content": "More."})
    return messages[:-1]


def anthropic(message):
    if message["role"] == "tool":
        part = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
        return [{"role": "user", "content": [part]}]
    if message["role"] == "user":
        return [message]
    thoughts = message.get("reasoning_content")
    parts = [{"type": "thinking", "thinking": thoughts, "signature": "s"}] if thoughts else []
    parts.append({"type": "text", "text": message["content"]})
    for call in message.get("tool_calls", ()):
        function = call["function"]
        parts.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": function["arguments"]})
    return [{"role": "assistant", "content": parts}]


def langchain(message):
    if message["role"] != "assistant":
        return [message]
    calls = [
        {"name": call["function"]["name"], "args": call["function"]["arguments"], "id": call["id"], "type": "tool_call"}
        for call in message.get("tool_calls", ())
    ]
    more = {"additional_kwargs": {"reasoning_content": message.get("reasoning_content")}}
    return [{"role": "assistant", "content": message["content"], "tool_calls": calls, **more}]


def responses(message):
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}]
    items = []
    if thoughts := message.get("reasoning_content"):
        items.append({"type": "reasoning", "summary": [{"type": "summary_text", "text": thoughts}]})
    kind = "output_text" if message["role"] == "assistant" else "input_text"
    items.append({"type": "message", "role": message["role"], "content": [{"type": kind, "text": message["content"]}]})
    calls = message.get("tool_calls", ())
    return [*items, *({"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls)]


def old_openai(message):
    if message["role"] == "tool":
        return [{"role": "function", "content": message["content"], "tool_call_id": message["tool_call_id"]}]
    message = dict(message)
    if calls := message.pop("tool_calls", None):
        message["function_call"] = calls[0]["function"]
    return [message]


def read(messages, form=lambda message: [message]):
    """The messages of a record, ids left out where the form has none, and text in one form."""
    formed = conversation(*(each for message in messages for each in form(message)))
    for turn in formed:
        if isinstance(turn["content"], list):
            assert all(part["type"] == "text" for part in turn["content"])
            turn["content"] = "\n".join(part["text"] for part in turn["content"])
        for call in turn.get("tool_calls", ()) if form is old_openai else ():
            call.pop("id", None)
    return formed


def without_ids(messages):
    for message in messages:
        for call in message.get("tool_calls", ()):
            call.pop("id")
    return messages


def with_text_arguments(messages):
    messages = orjson.loads(orjson.dumps(messages))
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = orjson.dumps(call["function"]["arguments"]).decode()
    return messages


def answer_hash(messages):
    scan = Scan()
    record = {"instance_id": "p", "reward": 1.0, "success": True, "messages": messages}
    assert scan.add(1, orjson.dumps(record), None) is None
    return scan.table()["completion_hash"][0]


@pytest.mark.parametrize("form", [anthropic, langchain])
@settings(max_examples=40)
@given(TURNS)
@example([("a", "why", [("read", {}), ("write", {"n": 1})])])
def test_parts_and_other_calls_become_openai_messages(form, turns):
    messages = openai(turns)
    assert read(messages) == messages
    assert read(messages, form) == messages


@settings(max_examples=40)
@given(TURNS)
def test_function_call_becomes_a_tool_call(turns):
    messages = openai(turns, most_calls=1)
    assert read(messages, old_openai) == without_ids(messages)


@settings(max_examples=40)
@given(TURNS)
@example([("a", "why", [("read", {}), ("write", {"n": 1})]), ("b", "so", [])])
def test_items_of_responses_become_openai_messages(turns):
    messages = with_text_arguments(openai(turns))
    assert read(messages, responses) == messages


@settings(max_examples=40)
@given(TURNS)
def test_arguments_as_text_and_objects_have_one_hash(turns):
    messages = openai(turns)
    assert answer_hash(messages) == answer_hash(with_text_arguments(messages))
    assert answer_hash(messages) == answer_hash([part for message in messages for part in langchain(message)])
