"""Words, signatures and near-duplicates."""

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.jobs.curation import signatures as module
from rollmill.jobs.curation.signatures import (
    NUM_PERM,
    near_duplicates,
    ngram_hashes,
    ngram_hashes_at,
    signatures,
    split_words,
)


def similarity(item, other):
    first, second = signatures([item, other])
    return sum(a == b for a, b in zip(first, second, strict=True)) / NUM_PERM


def column(rows):
    """Rows of (problem, signature or None, alive)."""
    problems, results, alive = zip(*rows, strict=True) if rows else ((), (), ())
    signature = pl.Series(results, dtype=pl.List(pl.UInt32))
    frame = pl.DataFrame({"instance_id": pl.Series(problems, dtype=pl.String), "signature": signature})
    return frame.with_columns(pl.Series("alive", alive, dtype=pl.Boolean)).to_struct("rows")


def apart(signature, positions):
    """The signature with its first positions changed."""
    return [value + 1 for value in signature[:positions]] + signature[positions:]


def greedy(rows, needed):
    """The definition, pair by pair."""
    kept, result = [], []
    for problem, signature, alive in rows:
        compared = bool(alive and signature)
        near = compared and any(
            other == problem and sum(a == b for a, b in zip(signature, before, strict=True)) >= needed
            for other, before in kept
        )
        result.append(near)
        if compared and not near:
            kept.append((problem, signature))
    return result


WORDS = [f"word{number}" for number in range(400)]
BASE = list(range(1000, 1000 + NUM_PERM))


def test_words_of_every_script():
    words = split_words(["Don't STOP: x_1 = ２!", "", "漢字かなカナ and हिन्दी", "?!", "caf\u00e9 cafe\u0301"])
    assert words.text.to_list() == [
        "don", "t", "stop", "x", "1", "2", "漢", "字", "か", "な", "カ", "ナ", "and", "हिन्दी", "café", "café",
    ]  # fmt: skip
    assert words.offsets.tolist() == [0, 6, 6, 14, 14, 16]
    assert words.starts(2).tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 14]
    assert words.starts(20).tolist() == []
    assert split_words([]).offsets.tolist() == [0]


@pytest.mark.parametrize("length", range(1, 15))
def test_ngram_hashes_are_the_polynomial(length):
    hashes = np.random.default_rng(length).integers(0, 1 << 64, 20, dtype=np.uint64)
    expected = []
    for start in range(21 - length):
        total = 0
        for value in hashes[start : start + length].tolist():
            total = (total * 0x9E3779B97F4A7C15 + value) % (1 << 64)
        expected.append(total)
    assert ngram_hashes(hashes, length).tolist() == expected
    assert ngram_hashes_at(hashes, np.array([3, 0]), length).tolist() == [expected[3], expected[0]]
    assert ngram_hashes(hashes[: length - 1], length).tolist() == []


def test_the_estimate_is_near_the_true_similarity():
    randomly = random.Random(4)
    words = randomly.choices(WORDS, k=1000)
    changed = [*words[:800], *randomly.choices(WORDS, k=200)]
    assert similarity(" ".join(words), " ".join(words).upper() + "!") == 1
    assert similarity(" ".join(words), " ".join(changed)) == pytest.approx(796 / 1196, abs=0.12)
    assert similarity(" ".join(words), " ".join(reversed(words))) < 0.05


def test_short_texts_are_compared_by_their_characters():
    assert similarity("x = 42", " x =\n42 ") == 1
    assert similarity("42", "43") < 0.3  # one run of eleven: the padded first character
    assert similarity("x - 1", "x + 1") < 0.5
    assert similarity("123456789", "23456789") < 0.8
    assert (
        similarity("The answer is 123456789012345678901234567890", "The answer is 12345678901234567890123456789") > 0.7
    )
    assert (
        similarity("漢字仮名交じり文という書き方", "漢字仮名交じり文という書き方だ") > 0.6
    )  # ten and eleven runs of five


def test_blank_texts_have_no_signature_and_order_does_not_matter():
    texts = ["a b c d e f", "", "hi", " \n\t", "one two three four five six", "???"]
    results = signatures(texts)
    assert [len(each) for each in results] == [NUM_PERM, 0, NUM_PERM, 0, NUM_PERM, NUM_PERM]
    assert signatures(texts[::-1]) == results[::-1]
    assert [signatures([text])[0] for text in texts] == results
    assert signatures([]) == []


def test_near_duplicates_at_the_threshold():
    at, below = apart(BASE, 25), apart(BASE, 26)  # 103 and 102 of 128 positions; 0.8 needs 102.4
    rows = [("p", BASE, True), ("p", at, True), ("p", below, True), ("q", at, True), ("p", None, True), ("p", [], True)]
    assert near_duplicates(column(rows)).to_list() == [False, True, False, False, False, False]
    assert near_duplicates(column(rows), threshold=1).to_list() == [False] * 6
    assert near_duplicates(column([("p", BASE, None), *rows, ("p", BASE, False)])).sum() == 1
    assert near_duplicates(column([])).to_list() == []


def test_a_row_is_compared_with_kept_rows_only():
    chain = [("p", apart(BASE, 20 * step), True) for step in range(4)]  # neighbours are near, others are not
    assert near_duplicates(column(chain)).to_list() == [False, True, False, True]
    assert near_duplicates(column([("p", BASE, False), *chain[1:]])).to_list() == [False, False, True, False]


@pytest.mark.parametrize("threshold", [0, 1.01, -1, float("nan")])
def test_invalid_threshold_is_refused(threshold):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        near_duplicates(column([("p", BASE, True)]), threshold=threshold)


def test_in_a_lazy_plan():
    frame = column([("p", BASE, True), ("q", BASE, True), ("p", BASE, True)]).struct.unnest().lazy()
    results = pl.struct("instance_id", "signature", "alive").map_batches(near_duplicates, return_dtype=pl.Boolean)
    assert frame.filter(~results).collect()["instance_id"].to_list() == ["p", "q"]


made_rows = st.lists(
    st.tuples(
        st.sampled_from("pqr"),
        st.one_of(
            st.none(),
            st.tuples(st.integers(0, 2), st.sampled_from([0, 5, 13, 25, 26, 40])).map(
                lambda drawn: apart([value + 5000 * drawn[0] for value in BASE], drawn[1])
            ),
        ),
        st.booleans(),
    ),
    max_size=30,
)


@pytest.mark.parametrize("large", [1, 256])
@settings(max_examples=60)
@given(rows=made_rows, threshold=st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_greedy_and_idempotent(rows, threshold, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LARGE_PROBLEM", large)
        patch.setattr(module, "_CHUNK_ROWS", 3)
        results = near_duplicates(column(rows), threshold=threshold).to_list()
        assert results == greedy(rows, threshold * NUM_PERM)
        left = [(*row[:2], row[2] and not near) for row, near in zip(rows, results, strict=True)]
        assert not near_duplicates(column(left), threshold=threshold).any()
