"""The labels of a conversation say exactly what the assistant wrote, and where it stopped."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.jobs.training.masks import IGNORED, Masks
from rollmill.jobs.training.rows import training_row
from rollmill.jobs.training.turns import RefusedError
from tests.jobs.training import made

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MODEL = Path(__file__).parents[3] / "models" / "SmolLM2-135M-Instruct"
ENDS = {
    "plain": (made.PLAIN, "<eos>"),
    "smollm2": (SMOLLM2, "<|im_end|>"),
    "chatml": (made.CHATML, "<|im_end|>"),
    "marked": (made.MARKED, "<|im_end|>"),
    "marked_content": (made.MARKED_CONTENT, "<|im_end|>"),
    "llama": (made.LLAMA, "<|eot_id|>"),
    "qwen": (made.QWEN, "<|im_end|>"),
    "tools": (made.TOOLS, "<|im_end|>"),
}
TOKENIZERS = {name: made.make_tokenizer(template) for name, (template, _) in ENDS.items()}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def learnt(name, *messages, tokenizer=None, longest=10_000, **more):
    """The runs of learnt tokens, each decoded."""
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
def test_each_assistant_turn_with_its_end_and_nothing_else(name):
    end = ENDS[name][1]
    turns = [said("user", "a?"), said("assistant", "first é"), said("user", "b?"), said("assistant", "second\nline")]
    assert learnt(name, *turns) == [f"first é{end}", f"second\nline{end}"]
    assert learnt(name, said("system", "be brief"), *turns[:2]) == [f"first é{end}"]


@pytest.mark.parametrize("name", ENDS)
def test_of_prompt_and_completion_only_the_completion_is_learnt(name):
    prompt = [said("user", "a?"), said("assistant", "shown"), said("user", "b?")]
    answer = [said("assistant", "c"), said("user", "d?"), said("assistant", "e")]
    end = ENDS[name][1]
    first, *more = learnt(name, prompt=prompt, completion=answer[:1])
    assert more == []
    assert first.endswith(f"c{end}")
    assert learnt(name, prompt=prompt, completion=answer)[0].endswith(f"c{end}")
    assert len(learnt(name, prompt=prompt, completion=answer)) == 2
    assert learnt(name, prompt="q", completion="a")[0].endswith(f"a{end}")


def test_a_template_that_trims_is_followed():
    assert learnt("llama", said("user", " a "), said("assistant", "  yes \n")) == ["yes<|eot_id|>"]


def test_reasoning_that_the_template_leaves_out_is_not_learnt():
    turns = [said("user", "a"), said("assistant", "<think>why</think>b"), said("user", "c")]
    last = said("assistant", "d", reasoning_content="because")
    assert learnt("qwen", *turns, last) == ["b<|im_end|>", "<think>\nbecause\n</think>\n\nd<|im_end|>"]
    assert learnt("qwen", *turns, said("assistant", "d"))[1] == "<think>\n\n</think>\n\nd<|im_end|>"


def test_tool_calls_are_learnt_and_tools_answers_are_not():
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = [
        said("user", "1+?"),
        said("assistant", None, tool_calls=[call]),
        said("tool", "2"),
        said("assistant", "2!"),
    ]
    written = '<tool_call>add {"a": 1}</tool_call><|im_end|>'
    assert learnt("tools", *turns) == [written, "2!<|im_end|>"]


def test_an_assistant_who_speaks_first():
    for name, (_, end) in ENDS.items():
        found = learnt(name, said("assistant", "hello"), said("user", "b"), said("assistant", "c"))
        assert [run.rpartition("\n")[2] for run in found] == [f"hello{end}", f"c{end}"]


def test_a_template_that_takes_no_short_conversation():
    template = "{% if messages | length < 3 %}{{ raise_exception('too short') }}{% endif %}" + made.CHATML
    turns = [said("user", "a"), said("assistant", "b"), said("user", "c"), said("assistant", "d")]
    assert learnt("", *turns, tokenizer=made.make_tokenizer(template)) == ["b<|im_end|>", "d<|im_end|>"]
    with pytest.raises(RefusedError, match="too short") as caught:
        learnt("", *turns[:2], tokenizer=made.make_tokenizer(template))
    assert caught.value.reason == "template_refused"


def test_a_template_that_hides_the_turns_is_refused_by_name():
    upper = made.CHATML.replace("{{ m.content }}", "{{ m.content | upper if loop.last else m.content | lower }}")
    turns = [said("user", "a"), said("assistant", "Bb"), said("user", "c"), said("assistant", "Dd")]
    with pytest.raises(RefusedError, match=r"the model: its chat template hides where turn 4 is") as caught:
        learnt("", *turns, tokenizer=made.make_tokenizer(upper))
    assert caught.value.reason == "turns_not_found"


def test_a_template_without_end_of_turn_learns_the_contents():
    template = made.PLAIN.replace("<eos>", "")
    turns = [said("user", "a"), said("assistant", "b"), said("user", "c"), said("assistant", "d")]
    assert learnt("", *turns, tokenizer=made.make_tokenizer(template)) == ["b", "d"]


def test_a_row_that_is_too_long_is_refused_and_never_cut():
    turns = [said("user", "a"), said("assistant", "b")]
    whole = len(TOKENIZERS["plain"](made.make_tokenizer().apply_chat_template(turns, tokenize=False))["input_ids"])
    assert learnt("plain", *turns, longest=whole) == ["b<eos>"]
    with pytest.raises(RefusedError, match=f"{whole} tokens, more than --max_length {whole - 1}") as caught:
        learnt("plain", *turns, longest=whole - 1)
    assert caught.value.reason == "over_max_length"


def test_no_chat_template_is_said_in_one_line():
    with pytest.raises(InputError, match="base has no chat template: give --model_path an instruction-tuned model"):
        Masks(made.make_tokenizer(None), "base")


@pytest.mark.skipif(not MODEL.is_dir(), reason="needs scripts/demo_model")
def test_the_real_tokenizer():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    turns = [
        said("user", "Wie geht's?"),
        said("assistant", " gut, 谢谢 "),
        said("user", "b"),
        said("assistant", "c\n\n"),
    ]
    assert learnt("", *turns, tokenizer=tokenizer) == [" gut, 谢谢 <|im_end|>", "c\n\n<|im_end|>"]


words = st.text(st.sampled_from("ab é\n<|>谢"), max_size=12)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["plain", "smollm2", "marked", "marked_content", "llama"]),
    turns=st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=4),
    system=st.none() | words,
)
def test_any_conversation(name, turns, system):
    messages = [said("system", system)] if system is not None else []
    for question, answer in turns:
        messages += [said("user", question), said("assistant", answer)]
    end = ENDS[name][1]
    answers = [answer.strip() if name == "llama" else answer for _, answer in turns]
    assert learnt(name, *messages) == [answer + end for answer in answers]
