import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.terminal.escapes import visible, visible_line


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
        ("❤\ufe0f 1\ufe0f\u20e3 👩\u200d⚕\ufe0f ‼\ufe0f", "❤\ufe0f 1\ufe0f\u20e3 👩\u200d⚕\ufe0f ‼\ufe0f"),
        ("a\ufe0f❤\ufe0f\ufe0f", "a\\ufe0f❤\ufe0f\\ufe0f"),
        ("a\ufe00\U000e0101", "a\\ufe00\\U000e0101"),
        ("\u3164\u115f\u1160\uffa0\u034f", "\\u3164\\u115f\\u1160\\uffa0\\u034f"),
        ("⠓\u2800⠊", "⠓\u2800⠊"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text, shown):
    assert visible(text) == shown


def test_unicode_blanks_in_a_line_are_escaped():
    assert visible_line("⠓\u2800⠊\u00a0a\u200bb\u17b4") == "⠓\\u2800⠊ a\\u200bb\\u17b4"


@given(st.text(st.characters()))
def test_visible_text_has_no_controls_and_can_be_encoded(text):
    shown = visible(text)
    assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cs"} and char not in "\n\t"]
    assert not [char for char in shown if unicodedata.bidirectional(char) in {"LRE", "RLE", "LRO", "RLO", "PDF"}]
    assert shown.encode().decode() == shown
    assert visible(shown) == shown
