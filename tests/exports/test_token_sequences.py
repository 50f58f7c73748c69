"""Sequences from recorded tokens: every call is trained on once, after the prompt that it was sampled with."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from rollmill.exports.token_sequences import IGNORED, TokenSequence, join_calls
from rollmill.inference.sampled_tokens import SampledTokens

ids = st.lists(st.integers(0, 9), max_size=6)


def call(prompt, written):
    return SampledTokens(array("I", prompt), array("I", written), None)


@st.composite
def rollouts(draw):
    calls = [call(draw(ids), draw(ids))]
    for _ in range(draw(st.integers(0, 4))):
        before = list(calls[-1].sequence) if draw(st.booleans()) else []
        calls.append(call([*before, *draw(ids)], draw(ids)))
    return calls, draw(st.lists(st.booleans(), min_size=len(calls), max_size=len(calls)))


@given(rollouts())
def test_each_trained_call_follows_its_prompt_once(built):
    calls, trained = built
    sequences = join_calls(calls, trained)
    expected = [index for index, call in enumerate(calls) if trained[index] and len(call.ids)]
    assert [index for sequence in sequences for index in sequence.calls] == expected
    for sequence in sequences:
        assert len(sequence.input_ids) == len(sequence.labels)
        for index in sequence.calls:
            begin, end = len(calls[index].prompt), len(calls[index].sequence)
            assert sequence.input_ids[:end] == list(calls[index].sequence)
            assert sequence.labels[begin:end] == list(calls[index].ids)
        assert sum(label != IGNORED for label in sequence.labels) == sum(len(calls[i].ids) for i in sequence.calls)


def test_a_conversation_whose_prompts_grow_is_one_sequence():
    sequences = join_calls([call([1, 2], [3, 9]), call([1, 2, 3, 9, 4], [5, 9])])
    assert sequences == [TokenSequence([1, 2, 3, 9, 4, 5, 9], [IGNORED] * 2 + [3, 9, IGNORED, 5, 9], [0, 1])]


def test_a_prompt_that_leaves_earlier_thoughts_out_begins_a_sequence():
    sequences = join_calls([call([1, 2], [7, 3, 9]), call([1, 2, 3, 9, 4], [5, 9])])
    assert [sequence.input_ids for sequence in sequences] == [[1, 2, 7, 3, 9], [1, 2, 3, 9, 4, 5, 9]]
    assert sequences[1].labels == [IGNORED] * 5 + [5, 9]


def test_untrained_call_is_context():
    calls = [call([1], [2, 9]), call([1, 2, 9, 3], [4, 9])]
    assert join_calls(calls, [False, True]) == [TokenSequence([1, 2, 9, 3, 4, 9], [IGNORED] * 4 + [4, 9], [1])]
    assert join_calls(calls, [True, False]) == [TokenSequence([1, 2, 9], [IGNORED, 2, 9], [0])]
    assert join_calls(calls, [False, False]) == []
