"""The loss mask of a conversation covers exactly the assistant's turns and their end tokens."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.jobs.training.chat_template import RefusedError
from rollmill.jobs.training.masks import IGNORED, Masks
from rollmill.jobs.training.rows import training_row
from rollmill.jobs.training.turns import render_turns
from tests.jobs.training import tiny_models

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MODEL = Path(__file__).parents[3] / "models" / "SmolLM2-135M-Instruct"
ENDS = {
    "plain": (tiny_models.PLAIN, "<eos>"),
    "smollm2": (SMOLLM2, "<|im_end|>"),
    "chatml": (tiny_models.CHATML, "<|im_end|>"),
    "marked": (tiny_models.MARKED, "<|im_end|>"),
    "marked_content": (tiny_models.MARKED_CONTENT, "<|im_end|>"),
    "llama": (tiny_models.LLAMA, "<|eot_id|>"),
    "qwen": (tiny_models.QWEN, "<|im_end|>"),
    "tools": (tiny_models.TOOLS, "<|im_end|>"),
}
TOKENIZERS = {name: tiny_models.make_tokenizer(template) for name, (template, _) in ENDS.items()}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def trained_texts(name, *messages, tokenizer=None, longest=10_000, **more):
    """Return the runs of tokens that carry the loss, each decoded."""
    row = more or {"messages": list(messages)}
    tokenizer = tokenizer or TOKENIZERS[name]
    tokens = Masks(tokenizer, "the model").encode(training_row(1, row), longest)
    assert len(tokens.input_ids) == len(tokens.labels)
    runs = [[]]
    for token, label in zip(tokens.input_ids, tokens.labels, strict=True):
        assert label in (IGNORED, token)
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize("name", ["plain", "smollm2", "chatml", "marked", "marked_content", "llama", "tools"])
def test_only_assistant_turns_with_their_end_tokens_carry_the_loss(name):
    end = ENDS[name][1]
    turns = [
        turn("user", "a?"),
        turn("assistant", "first é"),
        turn("user", "b?"),
        turn("assistant", "second\nline"),
    ]
    assert trained_texts(name, *turns) == [f"first é{end}", f"second\nline{end}"]
    assert trained_texts(name, turn("system", "be brief"), *turns[:2]) == [f"first é{end}"]


@pytest.mark.parametrize("name", ENDS)
def test_only_the_completion_carries_the_loss(name):
    prompt = [turn("user", "a?"), turn("assistant", "shown"), turn("user", "b?")]
    answer = [turn("assistant", "c"), turn("user", "d?"), turn("assistant", "e")]
    end = ENDS[name][1]
    first, *more = trained_texts(name, prompt=prompt, completion=answer[:1])
    assert more == []
    assert first.endswith(f"c{end}")
    assert trained_texts(name, prompt=prompt, completion=answer)[0].endswith(f"c{end}")
    assert len(trained_texts(name, prompt=prompt, completion=answer)) == 2
    assert trained_texts(name, prompt="q", completion="a")[0].endswith(f"a{end}")


def test_a_template_that_trims_content_is_followed():
    assert trained_texts("llama", turn("user", " a "), turn("assistant", "  yes \n")) == ["yes<|eot_id|>"]


def test_thoughts_dropped_later_are_trained_on_in_their_own_turn():
    """The template drops the thoughts of earlier turns: in the context of later ones, not where they were written."""
    turns = [turn("user", "a"), turn("assistant", "<think>why</think>b"), turn("user", "c")]
    last = turn("assistant", "d", reasoning_content="because")
    assert trained_texts("qwen", *turns, last) == [
        "<think>why</think>b<|im_end|>",
        "<think>\nbecause\n</think>\n\nd<|im_end|>",
    ]
    assert trained_texts("qwen", *turns, turn("assistant", "d"))[1] == "<think>\n\n</think>\n\nd<|im_end|>"
    row = training_row(1, {"messages": [*turns, last]})
    first, second = Masks(TOKENIZERS["qwen"], "M").encode_all(row, 1000).texts
    assert "why" in TOKENIZERS["qwen"].decode(first.input_ids)
    assert "why" not in TOKENIZERS["qwen"].decode(second.input_ids)
    joined = Masks(TOKENIZERS["qwen"], "M").encode(row, 1000)
    assert joined.input_ids == first.input_ids + second.input_ids


def test_tool_calls_carry_the_loss_and_tool_results_do_not():
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = [
        turn("user", "1+?"),
        turn("assistant", None, tool_calls=[call]),
        turn("tool", "2"),
        turn("assistant", "2!"),
    ]
    written = '<tool_call>add {"a": 1}</tool_call><|im_end|>'
    assert trained_texts("tools", *turns) == [written, "2!<|im_end|>"]


@pytest.mark.parametrize("name", ENDS)
def test_an_assistant_turn_may_be_the_first_message(name):
    """It carries the loss, unless the template writes something before the first message: then no prompt fits."""
    result = trained_texts(name, turn("assistant", "hello"), turn("user", "b"), turn("assistant", "c"))
    answers = ["c"] if name == "smollm2" else ["hello", "c"]
    assert [run.rpartition("\n")[2] for run in result] == [answer + ENDS[name][1] for answer in answers]


def test_a_turn_whose_prompt_the_template_refuses_is_left_out():
    template = "{% if messages | length < 3 %}{{ raise_exception('too short') }}{% endif %}" + tiny_models.CHATML
    turns = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]
    assert trained_texts("", *turns, tokenizer=tiny_models.make_tokenizer(template)) == ["d<|im_end|>"]
    with pytest.raises(RefusedError, match="too short") as caught:
        trained_texts("", *turns[:2], tokenizer=tiny_models.make_tokenizer(template))
    assert caught.value.reason == "template_refused"


def test_a_turn_whose_content_the_template_changes_is_left_out():
    upper = tiny_models.CHATML.replace(
        "{{ m.content }}", "{{ m.content | upper if m.role == 'assistant' else m.content }}"
    )
    with pytest.raises(RefusedError, match="the model: its chat template leaves the content of turn 2 out") as caught:
        trained_texts("", turn("user", "a"), turn("assistant", "Bb"), tokenizer=tiny_models.make_tokenizer(upper))
    assert caught.value.reason == "content_not_written"


def test_generation_markers_around_the_header_are_ignored():
    template = tiny_models.CHATML.replace(
        "<|im_start|>{{ m.role }}", "{% generation %}<|im_start|>{{ m.role }}", 1
    ).replace("<|im_end|>\n{% endfor", "<|im_end|>\n{% endgeneration %}{% endfor", 1)
    assert trained_texts(
        "", turn("user", "a"), turn("assistant", "b"), tokenizer=tiny_models.make_tokenizer(template)
    ) == ["b<|im_end|>"]


def test_the_end_token_may_be_written_only_before_the_next_turn():
    template = tiny_models.PLAIN.replace("<eos>", "{% if not loop.last or m.role == 'user' %}<eos>{% endif %}")
    turns = [turn("user", "a"), turn("assistant", "b")]
    assert trained_texts("", *turns, tokenizer=tiny_models.make_tokenizer(template)) == ["b<eos>"]


def test_a_token_that_closes_each_call_is_not_the_end_token():
    call = {"function": {"name": "f", "arguments": "{}"}}
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "<|tool|>{% endfor %}{% if not m.tool_calls %}<eos>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    with pytest.raises(RefusedError, match="writes no end behind the call of turn 2") as caught:
        trained_texts(
            "",
            turn("user", "a"),
            turn("assistant", "b", tool_calls=[call]),
            tokenizer=tiny_models.make_tokenizer(template),
        )
    assert caught.value.reason == "end_not_written"


@pytest.mark.parametrize("eos", ["<|im_end|>", "<eos>"])
@pytest.mark.parametrize("answer", ["b", "<", "|>", "im_end", "a longer answer than any header is"])
def test_one_end_token_where_renderings_end_with_the_next_turns_beginning(eos, answer):
    template = (
        "<bos>{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|tool|><|im_end|>{% endfor %}"
        "<|im_start|>{% if add_generation_prompt %}assistant\n{% endif %}"
    )
    turns = [turn("user", "a"), turn("assistant", answer), turn("user", "c"), turn("assistant", "d")]
    tokenizer = tiny_models.make_tokenizer(template, eos)
    assert trained_texts("", *turns, tokenizer=tokenizer) == [f"{answer}<|tool|><|im_end|>", "d<|tool|><|im_end|>"]


def test_stop_tokens_need_not_be_flagged_as_special():
    tokenizer = tiny_models.make_tokenizer(tiny_models.CHATML.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens(["<end>"])
    turns = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "to <end> it")]
    encoded = Masks(tokenizer, "M", ["<end>"]).encode_all(training_row(1, {"messages": turns}), 1000)
    assert dict(encoded.ends) == {"<end>": 1}
    assert [error.reason for error in encoded.refused] == ["special_token_in_text"]


def test_the_next_roles_token_is_the_end_behind_a_prompt_that_closes_thoughts():
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think></think>{% endif %}"
    )
    row = training_row(1, {"messages": [turn("user", "a"), turn("assistant", "b")]})
    encoded = Masks(tiny_models.make_tokenizer(template), "M", ["<|user|>"]).encode_all(row, 1000)
    assert (dict(encoded.ends), encoded.endless) == ({"<|user|>": 1}, 0)


DEEPSEEK_V31 = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}<|assistant|></think>"
    "{{ m.content.split('</think>', 1)[1] if '</think>' in m.content else m.content }}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
RAW, APART = {"content": "<think>hm</think>one"}, {"content": "one", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("options", "message", "prompt", "result"),
    [
        ({}, {"content": "one"}, "</think>", "one<eos>"),
        ({}, RAW, "<think>", "hm</think>one<eos>"),
        ({}, {"content": "<think>\nhm\n</think>\n\none"}, "<think>", "\nhm\n</think>\n\none<eos>"),
        ({}, APART, "<think>", "hm</think>one<eos>"),
        ({"thinking": True}, APART, "<think>", "hm</think>one<eos>"),
        ({"thinking": False}, {"content": "one"}, "</think>", "one<eos>"),
    ],
)
def test_thoughts_are_trained_on_behind_the_prompt_that_opens_them(options, message, prompt, result):
    row = {"messages": [turn("user", "a"), {"role": "assistant", **message}], "chat_template_kwargs": options}
    tokenizer = tiny_models.make_tokenizer(DEEPSEEK_V31)
    assert trained_texts("", tokenizer=tokenizer, **row) == [result]
    tokens = Masks(tokenizer, "M").encode(training_row(1, row), 1000)
    assert tokenizer.decode(tokens.input_ids) == f"<|user|>a<|assistant|>{prompt}{result}"


@pytest.mark.parametrize("message", [RAW, APART])
def test_turns_with_thoughts_are_left_out_where_the_prompt_closes_them(message):
    row = {
        "messages": [turn("user", "a"), {"role": "assistant", **message}],
        "chat_template_kwargs": {"thinking": False},
    }
    with pytest.raises(RefusedError, match="closes the thoughts in the prompt") as caught:
        trained_texts("", tokenizer=tiny_models.make_tokenizer(DEEPSEEK_V31), **row)
    assert caught.value.reason == "thoughts_not_written"


@pytest.mark.parametrize(
    "block", ["<|channel>thought\n<channel|>", "<think>\n\n</think>\n", "</think>", "[THINK][/THINK]"]
)
@pytest.mark.parametrize("context", ["", "/no_think "])
def test_an_empty_thoughts_block_of_the_prompt_is_not_trained_on(block, context):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        f"{{% if add_generation_prompt and loop.last %}}{context}{{% endif %}}{{{{ m.content }}}}"
        "<|im_end|>\n{% endfor %}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{block}{{% endif %}}"
    )
    tokenizer = tiny_models.make_tokenizer(template)
    turns = [turn("user", "a"), turn("assistant", "<b>"), turn("user", "c"), turn("assistant", "d")]
    assert trained_texts("", *turns, tokenizer=tokenizer) == ["<b><|im_end|>", "d<|im_end|>"]
    tokens = Masks(tokenizer, "M").encode(training_row(1, {"messages": turns[:2]}), 1000)
    prompt = f"<|im_start|>user\n{context}a<|im_end|>\n<|im_start|>assistant\n{block}"
    assert tokenizer.decode(tokens.input_ids) == f"{prompt}<b><|im_end|>"


def test_turns_with_weight_0_are_context_only():
    turns = [
        turn("user", "a"),
        turn("assistant", "b", weight=0),
        turn("user", "c"),
        turn("assistant", "d", weight=1),
    ]
    assert trained_texts("plain", *turns) == ["d<eos>"]
    row = training_row(1, {"messages": turns})
    assert "b<eos>" in TOKENIZERS["plain"].decode(Masks(TOKENIZERS["plain"], "M").encode(row, 1000).input_ids)


def test_a_truncated_turn_has_no_end_token():
    turns = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d e")]
    assert trained_texts("plain", messages=turns, metadata={"truncated": True}) == ["b<eos>", "d e"]
    thoughts = [turn("user", "a"), turn("assistant", "", reasoning_content="hm hm")]
    assert trained_texts("qwen", messages=thoughts, metadata={"truncated": True}) == ["<think>\nhm hm"]


def test_an_earlier_truncated_turn_has_no_end_token():
    turns = [turn("user", "a"), turn("assistant", "b", finish_reason="length"), turn("user", "c")]
    assert trained_texts("plain", *turns, turn("assistant", "d", finish_reason="stop")) == ["b", "d<eos>"]


def test_an_empty_turn_is_left_out():
    turns = [turn("user", "a"), turn("assistant", None), turn("user", "c"), turn("assistant", "d")]
    row = training_row(1, {"messages": turns})
    made_row = Masks(TOKENIZERS["plain"], "M").encode_all(row, 1000)
    assert [error.reason for error in made_row.refused] == ["turn_empty"]
    assert trained_texts("plain", *turns) == ["d<eos>"]


def test_call_ids_get_nine_letters_for_templates_that_require_them():
    template = tiny_models.TOOLS.replace(
        "<tool_call>", "{% if c.id | length != 9 %}{{ raise_exception('9 letters') }}{% endif %}<tool_call>{{ c.id }} "
    )
    call = {"id": "chatcmpl-tool-1", "function": {"name": "add", "arguments": "{}"}}
    turns = [
        turn("user", "1"),
        turn("assistant", "", tool_calls=[call]),
        turn("tool", "2", tool_call_id=call["id"]),
    ]
    assert trained_texts("", *turns, tokenizer=tiny_models.make_tokenizer(template)) == [
        "<tool_call>callaaaaa add {}</tool_call><|im_end|>"
    ]


def test_a_template_without_end_tokens_trains_the_contents():
    template = tiny_models.PLAIN.replace("<eos>", "")
    turns = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]
    assert trained_texts("", *turns, tokenizer=tiny_models.make_tokenizer(template)) == ["b", "d"]


def test_too_long_row_is_refused_and_never_truncated():
    turns = [turn("user", "a"), turn("assistant", "b")]
    total = len(
        TOKENIZERS["plain"](tiny_models.make_tokenizer().apply_chat_template(turns, tokenize=False))["input_ids"]
    )
    assert trained_texts("plain", *turns, longest=total) == ["b<eos>"]
    with pytest.raises(RefusedError, match=f"{total} tokens, more than --max_length {total - 1}") as caught:
        trained_texts("plain", *turns, longest=total - 1)
    assert caught.value.reason == "over_max_length"


def test_missing_chat_template_is_reported_in_one_line():
    with pytest.raises(InputError, match="base has no chat template: give --model_path an instruction-tuned model"):
        Masks(tiny_models.make_tokenizer(None), "base")


@pytest.mark.skipif(not MODEL.is_dir(), reason="needs scripts/demo_model")
def test_smollm2_tokenizer():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    turns = [
        turn("user", "Wie geht's?"),
        turn("assistant", " gut, 谢谢 "),
        turn("user", "b"),
        turn("assistant", "c\n\n"),
    ]
    assert trained_texts("", *turns, tokenizer=tokenizer) == [" gut, 谢谢 <|im_end|>", "c\n\n<|im_end|>"]


def made_of_pieces(scheme, merges=()):
    """Return a tokenizer like SentencePiece's: spaces are tokens, and one may be added before a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*tiny_models.SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz?."]
    pieces += [first + second for first, second in merges]
    made_here = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, list(merges), byte_fallback=True))
    made_here.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made_here.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made_here.add_special_tokens([AddedToken(item, special=True, normalized=False) for item in tiny_models.SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=made_here, pad_token="<pad>", eos_token="<eos>", chat_template=tiny_models.CHATML
    )


PIECES = {
    scheme: made_of_pieces(scheme, [("a", "b"), ("▁", "a"), ("▁", "ab")][:2]) for scheme in ("always", "first", "never")
}


@pytest.mark.parametrize("scheme", PIECES)
@pytest.mark.parametrize("answer", ["ab", " ab", "谢谢", "e\u0301 \U0001f600", "\nab\n"])
def test_a_tokenizers_added_space_is_not_trained_on(scheme, answer):
    assert trained_texts("", turn("user", "q?"), turn("assistant", answer), tokenizer=PIECES[scheme]) == [
        answer + "<|im_end|>"
    ]


def check_contexts(tokenizer, row):
    """Each turn follows the tokens of its complete prompt."""
    masks = Masks(tokenizer, "M")
    turns = render_turns(masks._template, row).turns
    contexts = []
    for tokens in masks.encode_all(row, 10_000).texts:
        learns = [label != IGNORED for label in tokens.labels]
        contexts += [
            tokens.input_ids[:begin] for begin in range(1, len(learns)) if learns[begin] and not learns[begin - 1]
        ]
    assert contexts == [tokenizer(turn.prompt, add_special_tokens=False)["input_ids"] for turn in turns]


words = st.text(st.sampled_from("ab é\n<|>谢\u0301\U0001f600"), max_size=12)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["plain", "smollm2", "marked", "marked_content", "llama"]),
    turns=st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=4),
    system=st.none() | words,
)
def test_any_conversation_trains_its_answers(name, turns, system):
    messages = [turn("system", system)] if system is not None else []
    for question, answer in turns:
        messages += [turn("user", question), turn("assistant", answer)]
    end = ENDS[name][1]
    answers = [answer.strip() if name == "llama" else answer for _, answer in turns]
    assert trained_texts(name, *messages) == [answer + end for answer in answers]


@settings(max_examples=60)
@given(
    tokenizer=st.sampled_from([*PIECES.values(), TOKENIZERS["chatml"], TOKENIZERS["qwen"]]),
    turns=st.lists(st.tuples(words, words.filter(str.strip), words), min_size=1, max_size=4),
)
def test_any_tokenizer_trains_its_answers(tokenizer, turns):
    messages = []
    for question, answer, thoughts in turns:
        messages += [turn("user", question), turn("assistant", answer)]
        if tokenizer is TOKENIZERS["qwen"]:
            messages[-1]["reasoning_content"] = thoughts
    row = training_row(1, {"messages": messages})
    check_contexts(tokenizer, row)
    result = trained_texts("", *messages, tokenizer=tokenizer)
    assert len(result) == len(turns)
    for text, (_, answer, _) in zip(result, turns, strict=True):
        assert text.endswith(answer + "<|im_end|>") or tokenizer is TOKENIZERS["qwen"]


def test_a_template_that_always_writes_the_generation_prompt():
    always = tiny_models.CHATML.replace("{% if add_generation_prompt %}", "{% if true %}")
    turns = [turn("user", "a?"), turn("assistant", "one"), turn("user", "b?"), turn("assistant", "two")]
    tokenizer = tiny_models.make_tokenizer(always, "<|im_end|>")
    assert trained_texts("chatml", *turns, tokenizer=tokenizer) == ["one<|im_end|>", "two<|im_end|>"]


@pytest.mark.parametrize("name", ["plain", "chatml", "llama"])
def test_turns_ended_by_a_stop_text_have_no_end_token(name):
    end = ENDS[name][1]
    first, second = turn("assistant", "first", stop_text="END"), turn("assistant", "second")
    turns = [turn("user", "a?"), first, turn("user", "b?"), second]
    assert trained_texts(name, *turns) == ["first", f"second{end}"]
    assert trained_texts(name, messages=turns, metadata={"no_end": True}) == ["first", "second"]
