"""Tokenizers are distinguished by their vocabularies, not by their files."""

from __future__ import annotations

import orjson
import pytest
from tokenizers import AddedToken, Tokenizer, models

from rollmill.errors import InputError
from rollmill.inference.tokenizer_hash import tokenizer_hash

WORDS = {"a": 0, "b": 1, "c": 2}


def save(folder, vocabulary, *added):
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_equal_vocabularies_have_one_hash_however_they_were_written(tmp_path):
    first = save(tmp_path / "first", WORDS, "<end>")
    second = save(tmp_path / "second", dict(reversed(WORDS.items())), "<end>")
    content = orjson.loads((tmp_path / "second/tokenizer.json").read_bytes())
    content["model"]["vocab"]["<end>"] = 3  # some writers list added tokens in both places
    (tmp_path / "second/tokenizer.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    assert tokenizer_hash(first) == tokenizer_hash(second)
    assert len(tokenizer_hash(first)) == 16


@pytest.mark.parametrize(
    ("vocabulary", "added"), [({"a": 0, "b": 2, "c": 1}, "<end>"), (WORDS, "<stop>"), ({"a": 0, "b": 1}, "<end>")]
)
def test_another_vocabulary_has_another_hash(tmp_path, vocabulary, added):
    assert tokenizer_hash(save(tmp_path / "first", WORDS, "<end>")) != tokenizer_hash(
        save(tmp_path / "second", vocabulary, added)
    )


def test_a_unigram_vocabulary_is_read(tmp_path):
    tokenizer = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_hash(str(tmp_path)) is not None


def test_a_vocabulary_that_stands_alone_is_read(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"a model of sentencepiece")
    assert tokenizer_hash(str(tmp_path)) is not None


@pytest.mark.parametrize("name", ["scripted", "no/such", "https://a.b/c d", "/nowhere"])
def test_what_is_not_on_this_machine_has_none(name):
    assert tokenizer_hash(name) is None


@pytest.mark.parametrize("content", ["", "[]", '{"model": {}}', '{"model": {"vocab": {"a": "x"}}}'])
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="cannot read the tokenizer"):
        tokenizer_hash(str(tmp_path))
