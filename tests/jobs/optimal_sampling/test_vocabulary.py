import logging

import pytest

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.vocabulary import check_vocabularies, common_size
from tests.jobs.optimal_sampling.made import make_tokenizer

NAMES = ("one", "other")


def test_equal_vocabularies():
    assert check_vocabularies(make_tokenizer(7), make_tokenizer(7, template="x"), names=NAMES) == 7


def test_differences_are_counted_and_the_first_are_shown():
    other = make_tokenizer(names=["w0", "w2", "w1", *(f"v{n}" for n in range(3, 9))])
    with pytest.raises(InputError) as caught:
        check_vocabularies(make_tokenizer(9), other, names=NAMES)
    text = str(caught.value)
    assert "of one (9 tokens) and other (9) differ in 14 tokens: " in text  # two of another id, six twice
    assert (
        "'w1' is 1 and 2; 'w2' is 2 and 1; 'v3' is missing and 3; 'w3' is 3 and missing; 'v4' is missing and 4:" in text
    )
    assert "\n" not in text


def test_a_longer_vocabulary_differs():
    with pytest.raises(InputError, match=r"differ in 1 tokens: 'w7' is missing and 7:"):
        check_vocabularies(make_tokenizer(7), make_tokenizer(8), names=NAMES)


@pytest.mark.parametrize(
    ("tokens", "embeddings", "size", "said"),
    [
        (10, {"a": 10}, 10, ""),
        (10, {"a": 16, "b": 12}, 10, "the first 10 ids (the tokenizer has 10; a has 16, b has 12)"),
        (10, {"a": 10, "b": 12}, 10, "b has 12"),
        (10, {"a": 8, "b": 12}, 8, "the first 8 ids (the tokenizer has 10; b has 12)"),
    ],
)
def test_what_is_drawn_from(tokens, embeddings, size, said, caplog):
    caplog.set_level(logging.INFO)
    assert common_size(tokens, embeddings) == size
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)
