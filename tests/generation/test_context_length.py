"""Notes on prompts that leave no room for completions in the model's context."""

import re

import orjson
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from rollmill.generation.context_length import context_note, local_counter, own_context, running_context
from rollmill.inference.trial import TrialRequest
from rollmill.problems import Prompting
from tests.generation.run_factory import opened
from tests.inference.raw_server import RawServer
from tests.inference.test_trial import parameters

MESSAGES = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    return folder


@pytest.mark.parametrize(
    ("length", "max_tokens", "words"),
    [
        (100, 90, None),
        (100, 91, "has 10 tokens: .*--max_tokens 90 or less"),
        (8, 1, "leave such problems out"),
        (None, 9, None),
    ],
)
def test_the_longest_prompt_and_its_answer(tmp_path, length, max_tokens, words):
    with opened(tmp_path, rows=3, num_rollout=1) as run:
        note = context_note(run, Prompting(), max_tokens=max_tokens, length=length, count=lambda messages: 10)
        nothing_known = context_note(run, Prompting(), max_tokens=max_tokens, length=length, count=lambda _: None)
    assert nothing_known is None
    if words is None:
        assert note is None
    else:
        assert re.search(words, note)


def test_tokens_by_the_tokenizer_of_a_directory(model, tmp_path):
    assert local_counter(str(model))(MESSAGES) == 3
    assert local_counter(str(tmp_path)) is None
    (model / "tokenizer.json").write_text("{}")
    assert local_counter(str(model)) is None


def test_the_context_of_a_server_of_our_own(model, tmp_path):
    assert own_context(str(model), [])[0] == 512
    assert own_context(str(model), ["--max-model-len", "64"])[0] == 64
    assert own_context(str(model), ["--max-model-len=auto"])[0] is None
    assert own_context("some/model", [])[0] is None


def test_the_context_and_the_tokens_of_a_running_server():
    listing = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 64}]}

    def answer(headers, body):
        if body == b"/v1/models":
            return 200, orjson.dumps(listing)
        assert orjson.loads(body) == {"model": "m", "messages": MESSAGES}
        return 200, b'{"count": 7, "max_model_len": 64}'

    with RawServer(answer) as server:
        length, count = running_context(TrialRequest(parameters(), (server.base_url,), ("m",), {}), "m")
        assert (length, count(MESSAGES)) == (64, 7)
    assert count(MESSAGES) is None
