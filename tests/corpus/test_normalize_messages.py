"""Forms of thoughts, calls and results of all producers, and the normalized form of each."""

import msgspec
import orjson
import pytest

from rollmill.corpus.call_pairing import count_open_calls
from rollmill.corpus.record import decode_record
from rollmill.corpus.scan import Scan
from rollmill.exports.conversation import clean

ARGUMENTS = '{"path": "a", "n": 123456789012345678901234567890, "x": 1.50, "path": "b"}'
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": ARGUMENTS}}
FORMED = {"role": "assistant", "content": "Look.", "tool_calls": [CALL]}
THOUGHT = {"role": "assistant", "content": "5", "reasoning_content": "2 and 3"}


def conversation(*messages, **fields):
    """Messages of a record in the one form, decoded."""
    record = decode_record(orjson.dumps({"instance_id": "p", "messages": list(messages), **fields}))
    return [plain(turn) for turn in record.conversation()]


def plain(turn):
    values = {name: getattr(turn, name) for name in ("content", "tool_calls", "tool_call_id", "name")}
    values |= {"reasoning_content": turn.reasoning_content, "weight": turn.weight}
    return {"role": turn.role} | {name: orjson.loads(bytes(value)) for name, value in values.items() if len(value)}


def answer(**fields):
    return {"role": "assistant", "content": "5", **fields}


@pytest.mark.parametrize(
    "recorded",
    [
        answer(reasoning_content="2 and 3"),
        answer(reasoning="2 and 3"),
        answer(thinking="2 and 3"),
        answer(reasoning="2 and 3", reasoning_content="2 and 3"),
        answer(thinking_blocks=[{"type": "thinking", "thinking": "2 and 3", "signature": "s"}]),
        answer(reasoning_details=[{"type": "reasoning.text", "text": "2 and 3"}]),
        answer(additional_kwargs={"reasoning_content": "2 and 3"}),
        answer(content=[{"type": "thinking", "thinking": "2 and 3", "signature": "s"}, {"type": "text", "text": "5"}]),
        answer(content=[{"type": "reasoning", "text": "2 and 3"}, {"type": "text", "text": "5", "thinking": None}]),
        answer(content=[{"type": "reasoning", "summary": [{"text": "2 and 3"}]}, {"type": "output_text", "text": "5"}]),
        {"role": "model", "parts": [{"text": "2 and 3", "thought": True}, {"text": "5"}]},
        answer(reasoning_content="", reasoning="2 and 3"),
        answer(thought="2 and 3"),
        answer(thoughts="2 and 3"),
        answer(analysis="2 and 3"),
        answer(reasoning_text="2 and 3"),
        answer(provider_specific_fields={"reasoning_content": "2 and 3"}),
        answer(content=[{"type": "reasoning_content", "reasoning_content": {"text": "2 and 3"}}, {"text": "5"}]),
        answer(content=[{"reasoningContent": {"reasoningText": {"text": "2 and 3"}}}, {"text": "5"}]),
    ],
)
def test_thoughts_are_normalized_to_reasoning_content(recorded):
    [turn] = conversation(recorded)
    content = turn["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    assert (text, turn["reasoning_content"]) == ("5", "2 and 3")
    assert turn["role"] == "assistant"


def test_thoughts_repeated_in_the_content_are_dropped():
    assert conversation(answer(content="I look.\nls", thought="I look.")) == [answer(content="I look.\nls")]


def test_think_block_that_repeats_the_thoughts_is_removed():
    repeated = answer(reasoning_content="2 and 3") | {"content": "<think>\n2 and 3\n</think>\n\n5"}
    assert conversation(repeated) == [THOUGHT]
    others = answer(reasoning_content="2 and 3") | {"content": "<think>4</think>5"}
    assert conversation(others) == [others]


def test_gpt_oss_analysis_becomes_thoughts_of_the_answer():
    analysis = {"role": "assistant", "channel": "analysis", "content": "2 and 3"}
    final = {"role": "assistant", "channel": "final", "content": "5"}
    assert conversation(analysis, final) == [THOUGHT]
    scan = Scan()
    for number, messages in enumerate([[analysis, final], [THOUGHT]]):
        scan.add(number, orjson.dumps({"instance_id": "p", "messages": messages}), None)
    assert scan.table()["completion_hash"].n_unique() == 1


def test_analysis_after_a_text_prompt_is_no_answer():
    scan = Scan()
    completion = [{"role": "assistant", "channel": "analysis", "content": "2 and 3"}]
    scan.add(1, orjson.dumps({"instance_id": "p", "prompt": "2+3", "completion": completion}), None)
    assert scan.table().select("empty", "reasoning_only").row(0) == (True, True)


def test_refusal_is_content():
    assert conversation(answer(content=[{"type": "refusal", "refusal": "No."}])) == [
        answer(content=[{"type": "text", "text": "No."}])
    ]


LANGCHAIN = [
    {"type": "system", "content": "s"},
    {"type": "human", "content": "2+3"},
    {"type": "ai", "content": "", "tool_calls": [{"name": "read", "args": {"a": 1}, "id": "c1", "type": "tool_call"}]},
    {"type": "tool", "content": "5", "tool_call_id": "c1"},
    {"type": "AIMessageChunk", "content": "5", "additional_kwargs": {"reasoning_content": "2 and 3"}},
]
CLASSES = ["SystemMessage", "HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]


def serialised(name, message, *, typed):
    inner = {key: value for key, value in message.items() if typed or key != "type"}
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": inner}


@pytest.mark.parametrize(
    "messages",
    [
        LANGCHAIN,
        [{"type": message["type"], "data": message} for message in LANGCHAIN],
        [serialised(name, message, typed=True) for name, message in zip(CLASSES, LANGCHAIN, strict=True)],
        [serialised(name, message, typed=False) for name, message in zip(CLASSES, LANGCHAIN, strict=True)],
    ],
)
def test_langchain_messages_are_normalized(messages):
    arguments = {"name": "read", "arguments": {"a": 1}}
    assert conversation(*messages) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "2+3"},
        answer(content="", tool_calls=[{"id": "c1", "type": "function", "function": arguments}]),
        {"role": "tool", "content": "5", "tool_call_id": "c1"},
        THOUGHT,
    ]


def test_langchain_messages_record_truncation():
    cut = {"type": "ai", "content": "5", "response_metadata": {"finish_reason": "length"}}
    for message in (cut, {"type": "ai", "data": cut}, serialised("AIMessage", cut, typed=False)):
        assert decode_record(orjson.dumps({"messages": [message]})).is_cut_off()


def test_langchain_roles_are_read():
    assert conversation({"role": "human", "content": "2+3"}, {"role": "ai", "content": "5"}) == [
        {"role": "user", "content": "2+3"},
        answer(),
    ]


def test_messages_without_a_role_are_refused():
    for message in ({"type": "message", "content": "a"}, {"type": "constructor", "kwargs": {"content": "a"}}):
        with pytest.raises(msgspec.ValidationError, match="role"):
            conversation(message)


def test_redacted_thoughts_are_dropped():
    [turn] = conversation(answer(content=[{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "5"}]))
    assert turn == {"role": "assistant", "content": [{"type": "text", "text": "5"}]}


@pytest.mark.parametrize(
    "beside",
    [
        {"reasoning_content": "2 and 3"}, {"reasoning": "2 and 3"}, {"metadata": {"reasoning": "2 and 3"}},
        {"thinking": "2 and 3"}, {"metadata": {"reasoning_content": "2 and 3"}},
        {"metadata": '{"reasoning": "2 and 3"}'}, {"reasoning_content": "", "reasoning": "2 and 3"},
    ],
)  # fmt: skip
def test_thoughts_beside_the_completion_belong_to_the_last_turn(beside):
    question = {"role": "user", "content": "2+3"}
    assert conversation(question, completion="5", **beside) == [question, THOUGHT]


OBJECT = {"path": "b", "n": 1}
USE = {"id": "c1", "name": "read", "input": OBJECT}
TEXT_PART = {"type": "text", "text": "text"}


@pytest.mark.parametrize(
    "recorded",
    [
        {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read", "arguments": OBJECT}}]},
        {"tool_calls": [{"id": "c1", "type": "tool_call", "name": "read", "args": OBJECT}]},
        {"tool_calls": [{"id": "c1", "name": "read", "arguments": OBJECT}]},
        {"tool_calls": '[{"id": "c1", "function": {"name": "read", "arguments": {"path": "b", "n": 1}}}]'},
        {"content": [{"type": "text", "text": "Look."}, {"type": "tool_use", **USE}]},
        {"content": [{"type": "text", "text": "Look.", "id": None, "name": None, "input": None},
                     {"type": "tool_use", **USE, "text": None, "input": {**OBJECT, "more": None}}]},
        {"tool_calls": [{"id": "c1", "function": {"name": "read", "arguments": {**OBJECT, "more": None}}}],
         "tool_call_id": None},
        {"tool_calls": {"id": "c1", "type": "function", "function": {"name": "read", "arguments": OBJECT}}},
        {"tool_calls": [], "invalid_tool_calls": [{"id": "c1", "name": "read", "args": OBJECT, "error": None}]},
        {"content": [{"text": "Look."}, {"toolUse": {"toolUseId": "c1", "name": "read", "input": OBJECT}}]},
    ],
)  # fmt: skip
def test_calls_are_normalized(recorded):
    [turn] = conversation({"role": "assistant", "content": "Look.", **recorded})
    function = {"name": "read", "arguments": OBJECT}
    assert turn["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert set(turn) == {"role", "content", "tool_calls"}


@pytest.mark.parametrize("name", ["args", "input", "parameters"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_arguments_are_read_under_any_name(name, is_nested):
    call = {"name": "read", name: {"a": 1}}
    [turn] = conversation(answer(tool_calls=[{"type": "function", "function": call} if is_nested else call]))
    assert turn["tool_calls"][0]["function"] == {"name": "read", "arguments": {"a": 1}}


@pytest.mark.parametrize("arguments", [{"arguments": ""}, {"arguments": None}, {"arguments": {}}, {}])
def test_a_call_without_arguments_has_an_empty_object(arguments):
    [turn] = conversation(answer(tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", **arguments}}]))
    assert turn["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    "recorded",
    [
        answer(tool_calls=[{"id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]),
        answer(tool_calls=[{"id": "c1", "type": "function", "function": {"arguments": "{}"}}]),
        answer(tool_calls="read it"),
        answer(tool_calls=[7]),
        answer(function_call={"arguments": "{}"}),
        answer(content=[{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, TEXT_PART]),
        answer(content=[{"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, TEXT_PART]),
        {"type": "custom_tool_call", "call_id": "c1", "name": "sh", "input": "ls"},
    ],
)
def test_call_without_a_normalized_form_refuses_the_row(recorded):
    question = {"role": "user", "content": "q"}
    record = decode_record(orjson.dumps({"instance_id": "p", "messages": [question, recorded, answer()]}))
    assert clean(record.conversation()) == "unreadable_call"


@pytest.mark.parametrize("calls", [[], {}, "", "[]", None])
def test_empty_calls_are_left_out(calls):
    [turn] = conversation(answer(tool_calls=calls, function_call={"name": None, "arguments": None}))
    assert turn == answer()


@pytest.mark.parametrize(
    "recorded",
    [
        {"role": "assistant", "content": "Look.", "function_call": {"name": "read", "arguments": ARGUMENTS}},
        {"role": "model", "parts": [{"text": "Look."}, {"functionCall": {"name": "read", "args": OBJECT}}]},
    ],
)
def test_call_without_an_id_stays_without(recorded):
    [turn] = conversation(recorded)
    [call] = turn["tool_calls"]
    assert (call["function"]["name"], call.keys()) == ("read", {"type", "function"})


def test_arguments_keep_their_text():
    assert conversation(FORMED) == [FORMED]


@pytest.mark.parametrize(
    "recorded",
    [
        {"role": "tool", "tool_call_id": "c1", "content": "text"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "text"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [TEXT_PART]}]},
        {"type": "function_call_output", "call_id": "c1", "output": "text"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "text"}]},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "text"},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "text"}]}}]},
    ],
)  # fmt: skip
def test_results_are_normalized(recorded):
    assert conversation(recorded) == [{"role": "tool", "content": "text", "tool_call_id": "c1"}]


def test_function_role_becomes_tool():
    [turn] = conversation({"role": "function", "name": "read", "content": "text"})
    assert turn == {"role": "tool", "name": "read", "content": "text"}


def test_items_of_responses_are_joined():
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "why"}]},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "read", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
    ]
    turns = conversation(*items)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1]["reasoning_content"] == "why"
    assert [call["id"] for call in turns[1]["tool_calls"]] == ["c1", "c2"]


def test_message_and_calls_of_responses_are_joined():
    items = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look."}]},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "read", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
    ]
    first, result = conversation(*items)
    assert (first["content"], len(first["tool_calls"])) == ([{"type": "text", "text": "Look."}], 2)
    assert result["role"] == "tool"


DATA = "data:image/png;base64,eA=="


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": "eA==", "mime_type": "image/png"},
        {"type": "image", "source_type": "base64", "data": "eA==", "mime_type": "image/png"},
        {"inlineData": {"mimeType": "image/png", "data": "eA=="}},
        {"inline_data": {"mime_type": "image/png", "data": "eA=="}},
        {"image": DATA},
    ],
)
def test_images_are_normalized(part):
    image = {"type": "image", "image": DATA}
    [question, result] = conversation(
        {"role": "user", "content": [part, {"type": "text", "text": None}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [part, TEXT_PART]}]},
    )
    assert (question["content"], result["content"]) == ([image], [image, TEXT_PART])


@pytest.mark.parametrize(
    "mark",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"training": False}, {"trainable": False}, {"loss": False},
     {"loss_weight": 0}, {"loss_mask": 0}, {"mask": 0}, {"mask": True}, {"masked": True}, {"train_on_turn": False},
     {"loss_mask": [0, 0]}, {"metadata": {"train": False}}, {"do_not_train": True}, {"is_train": False}, {"weight": -1},
     {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}],
)  # fmt: skip
def test_training_mark_becomes_weight_0(mark):
    assert conversation(answer(**mark)) == [answer(weight=0)]


@pytest.mark.parametrize(
    "mark",
    [{"weight": 1}, {"train": True}, {"mask": 1}, {"mask": False}, {"train": None},
     {"loss_mask": [0, 1]}, {"weight": 0.5}, {"metadata": {"train": True}}, {"do_not_train": False}, {"loss_mask": []}],
)  # fmt: skip
def test_other_values_do_not_exclude_from_training(mark):
    assert conversation(answer(**mark)) == [answer()]


@pytest.mark.parametrize(
    "cut",
    [
        {"finish_reason": "length"},
        {"stop_reason": "max_tokens"},
        {"extra": {"finish_reason": "length"}},
        {"extra": {"response": {"choices": [{"finish_reason": "length"}]}}},
        {"response_metadata": {"finish_reason": "length"}},
        {"metadata": {"finish_reason": "length"}},
        {"truncated": True},
        {"status": "incomplete"},
        {"finishReason": "MAX_TOKENS"},
        {"finish_reason": {"type": "length"}},
    ],
)
def test_earlier_truncated_turn_has_weight_0(cut):
    assert conversation(answer(**cut), answer(finish_reason="stop")) == [answer(weight=0), answer()]


@pytest.mark.parametrize(
    "row",
    [
        {"finish_reason": "max_output_tokens"},
        {"stop_reason": "max_tokens"},
        {"truncated": True},
        {"is_truncated": True},
        {"metadata": {"truncated": True}},
        {"metadata": {"finish_reason": "length"}},
        {"messages": [answer(finish_reason="length")]},
        {"messages": [answer(response_metadata={"finish_reason": "length"})]},
        {"messages": [{"role": "model", "parts": [{"text": "x"}], "finishReason": "MAX_TOKENS"}]},
        {"done_reason": "length"},
        {"finishReason": "FINISH_REASON_MAX_TOKENS"},
        {"incomplete_details": {"reason": "max_output_tokens"}},
        {"status": "incomplete"},
        {"choices": [{"finish_reason": "length"}]},
        {"response": {"choices": [{"finish_reason": "length"}]}},
        {"finish_reason": {"type": "length"}},
        {"metadata": '{"finish_reason": "length"}'},
        {"messages": [answer(extra={"response": {"choices": [{"finish_reason": "length"}]}})]},
    ],
)
def test_row_records_truncation(row):
    assert scanned(**{"messages": [answer()], **row})["truncated"] is True


@pytest.mark.parametrize(
    "row",
    [
        {"status": "completed"}, {"finish_reason": {"type": "stop"}}, {"metadata": {"status": "incomplete"}},
        {"response": "length"}, {"incomplete_details": None}, {"choices": []}, {"done_reason": "stop"},
    ],
)  # fmt: skip
def test_row_with_another_finish_reason_is_not_truncated(row):
    assert (
        scanned(**{"messages": [answer(status="completed", metadata={"finish_reason": "stop"})], **row})["truncated"]
        is False
    )


@pytest.mark.parametrize(
    "row",
    [{"train": False}, {"trainable": False}, {"exclude_from_training": True}, {"metadata": {"train": False}},
     {"weight": 0}, {"training": False}, {"loss_mask": 0}, {"loss_mask": [0, 0]}, {"masked": True},
     {"do_not_train": True}, {"metadata": {"weight": 0}}, {"metadata": {"do_not_train": True}},
     {"metadata": '{"train": false}'}],
)  # fmt: skip
def test_row_is_excluded_from_training(row):
    assert scanned(messages=[answer()], **row)["marked"] is True


def scanned(**row):
    scan = Scan()
    assert scan.add(1, orjson.dumps({"instance_id": "p", **row}), 0) is None
    return scan.table().row(0, named=True)


def test_equal_answers_in_other_forms_are_duplicates():
    hashes = [scanned(messages=[turn])["completion_hash"] for turn in (
        answer(reasoning="a"), answer(reasoning_content="a"),
        answer(content=[{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "5"}]),
        answer(reasoning="b"), answer(), answer(content=[{"type": "text", "text": "5"}]),
    )]  # fmt: skip
    assert hashes[0] == hashes[1] == hashes[2]
    assert hashes[4] == hashes[5]
    assert len(set(hashes)) == 3


def test_thoughts_alone_are_reasoning_only():
    row = scanned(messages=[{"role": "user", "content": "q"}], completion="", reasoning_content="hm")
    assert (row["empty"], row["reasoning_only"]) == (True, True)


def test_open_calls_are_counted():
    other = {**CALL, "id": "c2"}
    turns = [
        {"role": "assistant", "content": "", "tool_calls": [CALL, other]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c9", "content": "stray"},
    ]
    record = decode_record(orjson.dumps({"instance_id": "p", "messages": turns}))
    assert count_open_calls(record.conversation()) == (1, 1)
    row = scanned(messages=turns)
    assert (row["unanswered_calls"], row["stray_results"]) == (1, 1)


def test_json_answer_is_no_conversation():
    text = '[{"role": "user", "content": "x"}]'
    [_, turn] = conversation({"role": "user", "content": "q"}, completion=text)
    assert turn["content"] == text


@pytest.mark.parametrize("column", ["messages", "trajectory", "prompt"])
def test_messages_as_json_text_are_parsed(column):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    row = {"instance_id": "p", column: orjson.dumps(messages).decode()}
    assert [plain(turn) for turn in decode_record(orjson.dumps(row)).conversation()] == messages


@pytest.mark.parametrize(
    "row",
    [
        {"tools": [{"type": "function"}]},
        {"tools": '[{"type": "function"}]'},
        {"tools": ['{"type": "function"}']},
        {"metadata": {"tools": [{"type": "function"}]}},
        {"tools": [{"type": "function", "enum": None, "default": None}]},
    ],
)
def test_tools_are_read_from_row_or_metadata(row):
    record = decode_record(orjson.dumps({"instance_id": "p", **row}))
    assert orjson.loads(bytes(record.request_field("tools"))) == [{"type": "function"}]


def test_null_properties_of_tools_are_removed():
    properties = {"a": {"type": "string", "enum": None}, "b": None}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}
    record = decode_record(orjson.dumps({"instance_id": "p", "tools": [tool]}))
    [read] = orjson.loads(bytes(record.request_field("tools")))
    assert read["function"]["parameters"] == {"properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "read", "parameters": {"type": "object"}},
        {"type": "function", "name": "read", "parameters": {"type": "object"}},
        {"name": "read", "input_schema": {"type": "object"}},
        {"functionDeclarations": [{"name": "read", "parameters": {"type": "object"}}]},
    ],
)
def test_tools_are_normalized(tool):
    formed = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
    record = decode_record(orjson.dumps({"messages": [], "tools": [tool, {"type": "web_search"}]}))
    assert orjson.loads(bytes(record.request_field("tools"))) == [formed, {"type": "web_search"}]


def test_functions_of_older_requests_become_tools():
    record = decode_record(orjson.dumps({"instance_id": "p", "tools": None, "functions": [{"name": "f"}]}))
    assert orjson.loads(bytes(record.request_field("tools"))) == [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("recorded", "kept"), [({"a": None}, None), ({"a": None, "b": False}, {"b": False}), ({"b": 1}, {"b": 1})]
)
def test_null_template_arguments_are_removed(recorded, kept):
    record = decode_record(orjson.dumps({"instance_id": "p", "chat_template_kwargs": recorded}))
    value = bytes(record.request_field("chat_template_kwargs"))
    assert (orjson.loads(value) if value else None) == kept


@pytest.mark.parametrize(
    ("ending", "stop_text"),
    [
        ({"finish_reason": "stop", "stop_reason": "\nQ:"}, "\nQ:"),
        ({"stop_reason": "stop_sequence"}, ""),
        ({"finish_reason": "stop", "stop_reason": None}, None),
        ({"finish_reason": "stop", "stop_reason": "end_turn"}, None),
        ({"finish_reason": "stop", "stop_reason": 151645}, None),
        ({"stop_reason": "submitted"}, None),
    ],
)
def test_stop_string_is_recorded(ending, stop_text):
    turn = decode_record(orjson.dumps({"prompt": "q", "completion": "5", **ending})).conversation()[-1]
    assert (orjson.loads(bytes(turn.stop_text)) if len(turn.stop_text) else None) == stop_text
