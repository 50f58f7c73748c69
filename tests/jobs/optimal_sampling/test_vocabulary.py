import logging
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.vocabulary import check_vocabularies, common_size
from tests.jobs.optimal_sampling.tiny_pairs import (
    decode,
    load_pair,
    log_probs,
    make_model,
    make_tokenizer,
    mixture,
    requests,
    weight,
)

NAMES = ("one", "other")


def test_equal_vocabularies():
    assert check_vocabularies(make_tokenizer(7), make_tokenizer(7, template="x"), names=NAMES) == (7, ())


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


UNUSED = [
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<|reserved_special_token_5|>",
    "[unused7]",
    "<|finetune_right_pad_id|>",
    "<|extra_3|>",
]
USED = ["</s>", "<think>", "<|im_end|>", "pad", "reserved", "<tool_call>", "<|image_pad|>", "<extra_id_0>", "w1"]


@given(
    words=st.integers(2, 9),
    extra=st.lists(st.tuples(st.integers(0, 11), st.sampled_from(UNUSED), st.sampled_from(UNUSED)), max_size=3),
    longer=st.sampled_from([None, *UNUSED]),
)
def test_reserved_tokens_may_differ(words, extra, longer):
    names = [[f"w{number}" for number in range(words)] for _ in range(2)]
    for index, *pair in extra:
        if pair[0] not in names[0] and pair[1] not in names[1]:
            for side in (0, 1):
                names[side].insert(min(index + 1, len(names[side])), pair[side])
    if longer is not None and longer not in names[0] + names[1]:
        names[1].append(longer)
    size, excluded = check_vocabularies(*(make_tokenizer(names=list(side)) for side in names), names=NAMES)
    agreed = {index for index, (item, other) in enumerate(zip(*names, strict=False)) if item == other}
    assert set(range(size)) - set(excluded) == agreed


@pytest.mark.parametrize("token", USED)
def test_used_tokens_may_not_differ(token):
    names = ["w0", "v1", "v2"]
    with pytest.raises(InputError, match=rf"differ in 1 tokens: '{re.escape(token)}' is 3 and missing: give"):
        check_vocabularies(
            make_tokenizer(names=[*names, token], eos="v1"), make_tokenizer(names=names, eos="v1"), names=NAMES
        )


def test_a_token_that_ends_answers_may_not_differ():
    names = [f"w{number}" for number in range(7)]
    with pytest.raises(InputError, match="'<pad>' is 7 and missing"):
        check_vocabularies(make_tokenizer(names=[*names, "<pad>"]), make_tokenizer(7), names=NAMES, end_tokens={7})


def test_q_is_exact_over_what_both_share(tmp_path):
    words = [f"w{number}" for number in range(12)]
    item = make_tokenizer(names=[*words[:5], "<|reserved_special_token_0|>", *words[5:], "<pad>"])
    other = make_tokenizer(names=[*words[:5], "<|pad|>", *words[5:]])
    theta = make_model(tmp_path / "theta", tokenizer=item, ids=20)
    t = make_model(tmp_path / "t", tokenizer=other, ids=16, seed=1)
    pair = load_pair(theta, t)
    assert (pair.vocabulary, pair.excluded) == (13, (5,))
    kept = [number for number in range(13) if number != 5]
    logs = [log_probs(folder, [3, 4])[kept] for folder in (theta, t)]
    log_theta, log_t = (log_p - np.logaddexp.reduce(log_p) for log_p in logs)
    alpha = weight(log_theta, log_t, "kl_symmetry")
    kl = np.exp(mixture(log_theta, log_t, alpha)) @ (mixture(log_theta, log_t, alpha) - log_theta)
    result = decode(pair, requests([([3, 4], [3, 4])] * 40), max_new_tokens=1)
    assert 5 not in {drawn.token_ids[0] for drawn in result.values()}
    assert result[0].diagnostics["alpha"] == pytest.approx([alpha], abs=1e-4)
    assert result[0].diagnostics["kl_theta"] == pytest.approx([kl], rel=1e-3)


@pytest.mark.parametrize(
    ("tokens", "embeddings", "size", "message"),
    [
        (10, {"a": 10}, 10, ""),
        (10, {"a": 16, "b": 12}, 10, "the first 10 ids (the tokenizer has 10; a has 16, b has 12)"),
        (10, {"a": 10, "b": 12}, 10, "b has 12"),
        (10, {"a": 8, "b": 12}, 8, "the first 8 ids (the tokenizer has 10; b has 12)"),
    ],
)
def test_drawn_vocabulary_is_the_common_size(tokens, embeddings, size, message, caplog):
    caplog.set_level(logging.INFO)
    assert common_size(tokens, embeddings) == size
    assert message in caplog.text
    assert bool(caplog.text) == bool(message)
