import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.viewing.escapes import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n日本語 🎉", "plain\ttext\n日本語 🎉"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb\rc", "a\nb\\rc"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\u2028\ufeff", "\\u2028\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("👩\u200d🚀", "👩\u200d🚀"),  # joins an emoji
    ],
)
def test_what_would_act_or_hide_is_written_out(text, shown):
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_comes_out_controls_a_terminal_or_cannot_be_encoded(text):
    shown = visible(text)
    assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cs"} and char not in "\n\t"]
    assert not [char for char in shown if unicodedata.bidirectional(char) in {"LRE", "RLE", "LRO", "RLO", "PDF"}]
    assert shown.encode().decode() == shown
    assert visible(shown) == shown
