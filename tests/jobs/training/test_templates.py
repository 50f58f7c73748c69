"""Loss masks of turns, for every chat template that TRL ships and every kind of row."""

from __future__ import annotations

import orjson
import pytest

from rollmill.jobs.training.chat_template import RefusedError
from rollmill.jobs.training.masks import IGNORED, Masks
from rollmill.jobs.training.rows import training_row
from tests.jobs.training.templates import NAMES, source, tokenizer_of
from tests.jobs.training.tiny_models import make_tokenizer


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "name": "add", "content": "2"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "d",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer", "description": "x"}},
                "required": ["a"],
            },
        },
    }
]
ROWS = {
    "single": {"messages": [user("q?"), assistant("one é")]},
    "multi": {"messages": [user("q?"), assistant("one"), user("r?"), assistant("two")]},
    "system": {"messages": [{"role": "system", "content": "be brief"}, user("q?"), assistant("one")]},
    "thinking": {"messages": [user("q?"), assistant("one", reasoning_content="hm")]},
    "thinking twice": {
        "messages": [
            *(user("q?"), assistant("one", reasoning_content="hm")),
            *(user("r?"), assistant("two", reasoning_content="so")),
        ]
    },
    "raw": {"messages": [user("q?"), assistant("<think>\nhm\n</think>\n\none")]},
    "raw without mark": {"messages": [user("q?"), assistant("hm\n</think>\n\none")]},
    "tools": {"messages": [user("1+?"), assistant(None, tool_calls=[CALL]), RESULT, assistant("two")], "tools": TOOLS},
    "tools with content": {
        "messages": [user("1+?"), assistant("I add.", tool_calls=[CALL]), RESULT, assistant("two")],
        "tools": TOOLS,
    },
    "tools with thinking": {
        "messages": [user("1+?"), assistant("", tool_calls=[CALL], reasoning_content="hm"), RESULT, assistant("two")],
        "tools": TOOLS,
    },
}


def encoded(name, row):
    return Masks(tokenizer_of(name), "M").encode_all(training_row(1, row), 100_000)


def trained_texts(name, row):
    """Return the texts that carry the loss, and the reasons why other turns are refused."""
    tokenizer, runs = tokenizer_of(name), []
    try:
        result = encoded(name, row)
    except RefusedError as error:
        return [error.reason]
    for tokens in result.texts:
        before = IGNORED
        for label in tokens.labels:
            if label != IGNORED and before == IGNORED:
                runs.append([])
            if label != IGNORED:
                runs[-1].append(label)
            before = label
    return [tokenizer.decode(run) for run in runs] + [error.reason for error in result.refused]


EXPECTED = {
    ("deepseek_r1_distill", "single"): ["thoughts_missing"],
    ("deepseek_r1_distill", "thinking"): ["hm\n</think>\n\none<｜end▁of▁sentence｜>"],
    ("deepseek_r1_distill", "thinking twice"): [
        "hm\n</think>\n\none<｜end▁of▁sentence｜>", "so\n</think>\n\ntwo<｜end▁of▁sentence｜>",
    ],
    ("deepseek_r1_distill", "raw"): ["hm\n</think>\n\none<｜end▁of▁sentence｜>"],
    ("deepseek_r1_distill", "tools with thinking"): ["two<｜end▁of▁sentence｜>", "call_not_written"],
    ("deepseekv3", "tools with thinking"): [
        "hm\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
        '```json\n{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
        "two<｜end▁of▁sentence｜>",
    ],
    ("qwen3", "tools"): [
        '<think>\n\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>',
        "<think>\n\n</think>\n\ntwo<|im_end|>",
    ],
    ("qwen3", "thinking twice"): ["<think>\nhm\n</think>\n\none<|im_end|>", "<think>\nso\n</think>\n\ntwo<|im_end|>"],
    ("qwen3_5_nothink", "thinking"): ["hm\n</think>\n\none<|im_end|>"],
    ("qwen3_5_nothink", "raw"): ["hm\n</think>\n\none<|im_end|>"],
    ("qwen3_5_nothink", "multi"): ["one<|im_end|>", "two<|im_end|>"],
    ("qwen3_5_think", "raw without mark"): ["hm\n</think>\n\none<|im_end|>"],
    ("qwen3_8", "raw"): ["hm\n</think>\n\none<|im_end|>"],
    ("nemotron_3_nano", "thinking"): ["hm\n</think>\none<|im_end|>"],
    ("nemotron_3_nano", "raw without mark"): ["hm\n</think>\n\none<|im_end|>"],
    ("nemotron_3_nano", "single"): ["one é<|im_end|>"],
    ("phi3", "multi"): ["one<|end|>", "two<|end|>"],
    ("phi3_5", "multi"): ["one<|end|>", "two<|end|>"],
    ("phi3", "tools"): ["two<|end|>", "call_not_written"],
    ("phi3", "thinking"): ["thoughts_not_written"],
    ("gptoss", "multi"): [
        "<|channel|>final<|message|>one<|return|>", "<|channel|>final<|message|>two<|return|>",
    ],
    ("gptoss", "thinking"): [
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>one<|return|>",
    ],
    ("gptoss", "tools with thinking"): [
        "<|channel|>analysis<|message|>hm<|end|>"
        '<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a": 1}<|call|>',
        "<|channel|>final<|message|>two<|return|>",
    ],
    ("gemma", "system"): ["template_refused"],
    ("gemma3", "multi"): ["one<end_of_turn>", "two<end_of_turn>"],
    ("cohere2", "single"): ["one é<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"],
    ("llama3_1", "tools"): ['{"name": "add", "parameters": {"a": 1}}<|eot_id|>', "two<|eot_id|>"],
    ("llama3", "tools"): ["two<|eot_id|>", "call_not_written"],
    ("lfm2_2_5", "tools with thinking"): [
        "<think>hm</think><|tool_call_start|>[add(a=1)]<|tool_call_end|><|im_end|>", "two<|im_end|>",
    ],
    ("muse_glimmer", "thinking"): [
        " to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>one<|eot|>",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_turns_are_trained_on_as_the_model_wrote_them(name, kind):
    assert trained_texts(name, ROWS[kind]) == EXPECTED[name, kind]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ROWS)
def test_every_turn_is_trained_on_or_refused_with_a_reason(name, kind):
    """Each turn is trained on with its thoughts, content and calls, or left out with a reason."""
    row, result = ROWS[kind], trained_texts(name, ROWS[kind])
    spoken = [message for message in row["messages"] if message["role"] == "assistant"]
    if result[0].endswith(("_refused", "_missing", "_written", "_found")):
        return
    assert len(result) == len(spoken)
    kept = [text for text in result if not text.endswith(("_refused", "_missing", "_written", "_found"))]
    total = [message for message in spoken if any(all(word in text for word in words(message)) for text in kept)]
    assert len(total) == len(kept)


def words(message):
    calls = ["add", "1"] if message.get("tool_calls") else []
    answer = (message["content"] or "").rpartition("</think>")[2].strip()
    thoughts = "hm" if "hm" in (message["content"] or "") else message.get("reasoning_content", "")
    return [answer, thoughts, *calls]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["single", "multi", "system"])
def test_the_context_is_the_servers_prompt(name, kind):
    """Render each prompt as a server does, and compare it with the tokens before the turn."""
    tokenizer, row = tokenizer_of(name), ROWS[kind]
    try:
        result = encoded(name, row)
    except RefusedError:
        pytest.skip("the template takes no such row")
    contexts = [tokens.input_ids[:begin] for tokens in result.texts for begin in begins(tokens.labels)]
    assert contexts == [
        prompt_ids(tokenizer, row["messages"][:number], parts=has_parts(name))
        for number, message in enumerate(row["messages"])
        if message["role"] == "assistant"
    ] or name.startswith("nemotron")  # thinks by default: see test_thinking_follows_the_turn


def begins(labels):
    return [
        index for index, label in enumerate(labels) if label != IGNORED and (index == 0 or labels[index - 1] == IGNORED)
    ]


def has_parts(name):
    return name in {"idefics3", "llava_next", "smolvlm"}


def prompt_ids(tokenizer, messages, *, parts):
    if parts:
        messages = [{**item, "content": [{"type": "text", "text": item["content"]}]} for item in messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("name", "options", "message", "prompt", "result"),
    [
        ("qwen3", {"enable_thinking": False}, {}, "<think>\n\n</think>\n\n", ["one<|im_end|>"]),
        ("qwen3", {}, {}, "assistant\n", ["<think>\n\n</think>\n\none<|im_end|>"]),
        ("qwen3_5_nothink", {}, {"reasoning_content": "hm"}, "<think>\n", ["hm\n</think>\n\none<|im_end|>"]),
        ("nemotron_3_nano", {}, {}, "<think></think>", ["one<|im_end|>"]),
        ("nemotron_3_nano", {"enable_thinking": True}, {"reasoning_content": "hm"}, "<think>\n",
         ["hm\n</think>\none<|im_end|>"]),
    ],
)  # fmt: skip
def test_thinking_is_set_by_the_recorded_options_or_by_the_turn(name, options, message, prompt, result):
    row = {"messages": [user("q"), assistant("one", **message)], "chat_template_kwargs": options}
    assert trained_texts(name, row) == result
    tokens = encoded(name, row).texts[0]
    assert tokenizer_of(name).decode(tokens.input_ids[: begins(tokens.labels)[0]]).endswith(prompt)


def test_thoughts_against_the_recorded_options_are_refused():
    row = {
        "messages": [user("q"), assistant("one", reasoning_content="hm")],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert trained_texts("qwen3", row) == ["thoughts_not_written"]


def test_arguments_are_text_for_templates_that_write_text():
    odd = {**CALL, "function": {"name": "add", "arguments": '{"a":1,  "b": [true, null]}'}}
    row = {"messages": [user("q"), assistant(None, tool_calls=[odd], reasoning_content="hm")]}
    assert '```json\n{"a":1,  "b": [true, null]}\n```' in trained_texts("deepseekv3", row)[0]
    assert '"arguments": {"a": 1, "b": [true, null]}}' in trained_texts("qwen2_5", {"messages": [
        user("q"), assistant(None, tool_calls=[odd])]})[0]  # fmt: skip


@pytest.mark.parametrize("name", ["gptoss", "qwen2_5", "lfm2_2_5", "gemma4"])
@pytest.mark.parametrize("value", ["\n", "im_end|>", "call", "a"])
def test_the_end_token_is_found_behind_any_call(name, value):
    odd = {**CALL, "function": {"name": "a", "arguments": f'{{"a": {orjson.dumps(value).decode()}}}'}}
    result = encoded(name, {"messages": [user("q"), assistant("", tool_calls=[odd])]})
    assert (result.ends.total(), result.endless) == (1, 0)


@pytest.mark.parametrize("content", ["im_end", "assistant", "rollmillturn", "a<|im_end>\n b", "<|im_end|\n"])
def test_the_end_token_is_found_behind_any_content(content):
    result = trained_texts("qwen2_5", {"messages": [user("q"), assistant(content)]})
    assert result == [content + "<|im_end|>"]


@pytest.mark.parametrize(
    "message",
    [
        assistant("use <|im_end|> ok"),
        assistant("token: <|im_end|>"),
        assistant("<|im_start|>\n"),
        assistant("<think>\nwhy <|im_end|></think>b"),
        assistant("one", reasoning_content="<|im_start|>?"),
        assistant("", tool_calls=[{**CALL, "function": {"name": "add", "arguments": '{"a": [{"<|im_end|>": 1}]}'}}]),
        assistant("", tool_calls=[{**CALL, "function": {"name": "add", "arguments": '{"a": "<|im_end|>'}}]),
    ],
)
@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_a_turn_with_a_special_token_as_text_is_left_out(name, message):
    """It is not known if the model generated that token or its letters."""
    assert trained_texts(name, {"messages": [user("q"), message]}) == ["special_token_in_text"]


OPEN = "<think>\nI was thinking ab"


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("qwen3", OPEN),
        ("qwen2_5", OPEN),
        ("qwen3_5_think", "I was thinking ab"),
        ("qwen3_5_nothink", "I was thinking ab"),
        ("deepseek_r1_distill", "I was thinking ab"),
        ("nemotron_3_nano", "I was thinking ab"),
    ],
)
def test_cut_off_thoughts_are_trained_on_behind_the_prompt(name, result):
    row = {"messages": [user("q"), assistant(OPEN)], "metadata": {"truncated": True}}
    assert trained_texts(name, row) == [result]
    assert trained_texts(name, {"messages": row["messages"]}) == ["thoughts_not_closed"]


@pytest.mark.parametrize("name", ["qwen3_5_think", "deepseek_r1_distill", "nemotron_3_nano"])
def test_content_cut_off_behind_opened_thoughts_is_thoughts(name):
    row = {"messages": [user("q"), assistant("I was thinking ab")], "metadata": {"truncated": True}}
    assert trained_texts(name, row) == ["I was thinking ab"]
    assert trained_texts("qwen3", row) == ["<think>\n\n</think>\n\nI was thinking ab"]


def test_cut_off_thoughts_are_refused_behind_a_prompt_that_closes_them():
    row = {"messages": [user("q"), assistant(OPEN)], "metadata": {"truncated": True}}
    assert trained_texts("qwen3", {**row, "chat_template_kwargs": {"enable_thinking": False}}) == [
        "thoughts_not_written"
    ]


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ('{"tool": 1}', '{"tool": 1'),
        ('{"l": 2}', '{"l": 2'),
        ('{"x": "</tool_call>"}', '{"x": "</tool_call>'),
        ('{"name": "t", "a": "t"}', '{"name": "t", "a": "t'),
        ('{"a": [1, {"b": null}]}', '{"a": [1, {"b": null'),
        ('{"a": true, "b": "Rome\\n"}', '{"a": true, "b": "Rome\\n'),
    ],
)
def test_a_cut_off_call_is_trained_on_up_to_its_last_value(arguments, result):
    call = {**CALL, "function": {"name": "add", "arguments": arguments}}
    row = {"messages": [user("q"), assistant("ok", tool_calls=[call])], "metadata": {"truncated": True}}
    assert trained_texts("qwen2_5", row) == ['ok\n<tool_call>\n{"name": "add", "arguments": ' + result]
    assert encoded("qwen2_5", row).endless == 1


@pytest.mark.parametrize("arguments", ["{}", '{"a": []}'])
def test_a_cut_off_call_without_a_value_is_left_out(arguments):
    call = {**CALL, "function": {"name": "add", "arguments": arguments}}
    row = {"messages": [user("q"), assistant("ok", tool_calls=[call])], "metadata": {"truncated": True}}
    assert trained_texts("qwen2_5", row) == ["cut_off_in_call"]


def test_special_tokens_in_user_turns_are_encoded_as_by_servers():
    row = {"messages": [user("what is <|im_end|>?"), assistant("a token"), user("<|im_start|>"), assistant("so")]}
    assert trained_texts("qwen2_5", row) == ["a token<|im_end|>", "so<|im_end|>"]


def test_arguments_that_are_no_json_must_not_be_quoted():
    odd = {**CALL, "function": {"name": "add", "arguments": '{"a": '}}
    assert trained_texts("qwen2_5", {"messages": [user("q"), assistant("x", tool_calls=[odd])]}) == ["call_not_written"]


def test_the_next_roles_token_is_the_end_where_the_model_stops_at_it():
    tokenizer = tokenizer_of("glm4moe")
    row = training_row(1, ROWS["multi"])
    result = Masks(tokenizer, "M", ["<|user|>", "<|observation|>"]).encode_all(row, 10_000)
    assert (dict(result.ends), result.endless) == ({"<|user|>": 2}, 0)
    result = Masks(tokenizer, "M", ["<|user|>", "<|observation|>"]).encode_all(training_row(1, ROWS["tools"]), 10_000)
    assert dict(result.ends) == {"<|observation|>": 1, "<|user|>": 1}
    assert Masks(tokenizer, "M").encode_all(row, 10_000).endless == 2


def test_the_next_roles_token_is_the_end_behind_a_token_that_closes_a_call():
    special = ["<pad>", "<eos>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>", "<|system|>"]
    tokenizer = make_tokenizer(source("glm4moe"), "<eos>", [*special, "<tool_call>", "</tool_call>"])
    row = training_row(1, ROWS["tools"])
    result = Masks(tokenizer, "M", ["<|user|>", "<|observation|>"]).encode_all(row, 10_000)
    assert (dict(result.ends), result.refused) == ({"<|observation|>": 1, "<|user|>": 1}, [])


def test_the_refusal_is_that_of_the_form_which_the_template_accepts():
    """The template refuses ids of other lengths, and omits the call."""
    template = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
        "{{ raise_exception('9 letters') }}{% endif %}{% endfor %}<|{{ m.role }}|>{{ m.content }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    row = training_row(1, {"messages": [user("q"), assistant("a", tool_calls=[CALL])]})
    with pytest.raises(RefusedError) as caught:
        Masks(make_tokenizer(template), "M").encode_all(row, 10_000)
    assert caught.value.reason == "call_not_written"


@pytest.mark.parametrize(("name", "result"), [("qwen2_5", True), ("qwen3", False)])
def test_a_quoted_think_tag_is_not_the_end_of_thoughts(name, result):
    row = training_row(1, {"messages": [user("q?"), assistant("Use the `</think>` tag.")]})
    masks = Masks(tokenizer_of(name), "M")
    if result:
        [tokens] = masks.encode_all(row, 10_000).texts
        trained = [token for token in tokens.labels if token != IGNORED]
        assert masks.decode(trained) == "Use the `</think>` tag.<|im_end|>"
    else:
        with pytest.raises(RefusedError, match="content"):
            masks.encode_all(row, 10_000)
