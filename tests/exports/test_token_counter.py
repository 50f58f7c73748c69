"""Counts of tokens through the chat template."""

import pytest

from rollmill.errors import InputError
from rollmill.exports.token_counter import ContextualChat, TokenCounter

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<s> {{ message.role }} {{ message.content }}"
    "{% for call in message.tool_calls or [] %} {{ call.function.arguments.path }}{% endfor %} </s> "
    "{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Directories of a tokenizer that makes a token of every word: with a chat template, and without."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    base = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base.enable_truncation(4)
    base.enable_padding(length=9)
    built = {}
    for name, template in {"template": TEMPLATE, "plain": None}.items():
        folder = tmp_path_factory.mktemp(name)
        fast = PreTrainedTokenizerFast(tokenizer_object=base, unk_token="[UNK]", model_max_length=4)
        fast.chat_template = template
        fast.save_pretrained(folder)
        built[name] = str(folder)
    return built


def user(content):
    return {"role": "user", "content": content}


def test_chat_template_counts(tokenizer):
    counter = TokenCounter(tokenizer["template"])
    assert counter.count([[user("one two three")], [user("one"), {"role": "assistant", "content": "two"}]]) == [6, 8]
    assert counter.count([]) == []
    assert counter.without_template == 0


def test_images_and_null_count_nothing(tokenizer):
    counter = TokenCounter(tokenizer["template"])
    parts = [{"type": "text", "text": "a b"}, {"type": "image", "image": "x.png"}, {"type": "text", "text": "c"}]
    assert counter.count([[user(parts)], [user(None)]]) == [6, 3]


def test_arguments_of_tool_calls_are_objects_for_the_template(tokenizer):
    counter = TokenCounter(tokenizer["template"])
    calls = [{"function": {"name": "read", "arguments": text}} for text in ('{"path": "a b c"}', {"path": "d"}, "{")]
    assert counter.count([[{"role": "assistant", "content": None, "tool_calls": calls}]]) == [7]
    assert counter.without_template == 0


def test_refused_conversation_counts_without_template(tokenizer):
    counter = TokenCounter(tokenizer["template"])
    refused = [user("one two"), {"role": "tool", "content": "three"}]
    assert counter.count([refused, [user("one")], []]) == [3, 4, 0]
    assert counter.without_template == 2


def test_a_tokenizer_without_template(tokenizer):
    counter = TokenCounter(tokenizer["plain"])
    assert counter.count([[user("one two"), user("three")]]) == [3]
    assert counter.without_template == 1


def test_unknown_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"cannot load the tokenizer {tmp_path}, tried as") as raised:
        TokenCounter(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_tokenizer_in_python_only(tokenizer):
    counter = TokenCounter(tokenizer["template"])
    counter._backend = None
    assert counter.count([[user("one two three")], [user("one")]]) == [6, 4]


CONTEXTUAL = (
    "{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}"
    "{% for message in messages %}<s> {{ message.role }} {{ message.reasoning or '' }} {{ message.content }} </s> "
    "{% endfor %}{% if enable_thinking is false %}no thoughts {% endif %}"
)


def test_tools_arguments_and_thoughts_count(tokenizer):
    counter = TokenCounter(tokenizer["template"])
    counter._tokenizer.chat_template = CONTEXTUAL
    chat = [user("one"), {"role": "assistant", "content": "two", "reasoning_content": "a b c"}]
    context = {"tools": [{"function": {"name": "read"}}], "chat_template_kwargs": {"enable_thinking": False}}
    both = [*chat, *chat]
    assert counter.count([chat, ContextualChat(chat, context)]) == [11, 14]
    assert counter.count([both, ContextualChat(both, {}, reasoning_dropped=True)]) == [22, 19]


def test_thoughts_of_the_last_turn_count_where_the_template_leaves_them_out(tokenizer):
    thinking = [user("one"), {"role": "assistant", "content": "two", "reasoning_content": "a b c"}]
    assert TokenCounter(tokenizer["template"]).count([thinking, [*thinking, user("one")]]) == [11, 12]
