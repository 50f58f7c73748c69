"""Conclusions of prose, by the kind of text around them."""

import pytest

from rollmill.verifiers.conclusion import conclusion, remove_check, remove_struck
from rollmill.verifiers.numeric import NumericVerifier


@pytest.mark.parametrize(
    "sentence",
    [
        "7 + 4 = 11 and 11 + 4 = 15, so there are 15 birds.",
        "There are 15 birds, because 4 joined 11.",
        "There are 15 birds (and 3 nests).",
        "There are 15 birds (= 11 + 4).",
        "There are 15 birds \u2014 4 more came to the 11.",
        "There are 15 birds, not 19.",
        "11 plus 4 is 15.",
        "15 = 11 + 4",
        "At 6:30 there were 11, and with 4 that makes 15.",
        "In the 2 trees sit 11 + 4 = 15 birds!",
        "Hence 15 birds sit in 2 trees.",
        "~~19~~ 15",
        '{"steps": 2, "final_answer": "15"}',
        "There are 15 birds.\nTo verify: 15 - 4 = 11.",
        "\u2713 15",
        "Since there were 11, we get 15.",
    ],
)
def test_text_around_a_number_does_not_change_the_verdict(make_problem, sentence):
    assert NumericVerifier().verify(make_problem("15"), sentence).success


@pytest.mark.parametrize(
    "sentence",
    [
        "There are 15 birds (or 16).",
        "There are 15 birds (not sure).",
        "There are 15 birds \u2014 no, 16.",
        "There are 15 birds, so maybe 16.",
        "There are 15 birds, not counting",
        "15 = 11 + 5",
        "11 plus 5 is 15.",
        "~~15~~",
        "He multiplies 15 by 2.",
        "20 minus 15",
        "It is minus 15.",
        "Negative fifteen.",
        "11 + 4 = 15, so 16.",
        '{"final_answer": null, "guess": 15}',
        "There are 15 birds.\nLet me check: 11 + 4 is not 15.",
    ],
)
def test_hedges_contradictions_and_other_numbers_are_wrong(make_problem, sentence):
    assert not NumericVerifier().verify(make_problem("15"), sentence).success


def test_hedges_are_not_removed():
    assert conclusion("It is 4 (or 5).") == "It is 4 (or 5)."
    assert remove_check("It is 4.\nCheck: this is wrong") == "It is 4.\nCheck: this is wrong"
    assert remove_struck("~~4~~ 5").strip() == "5"
