import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.environments.parsing import all_tagged, last_boxed, last_python, last_tagged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{ 2 }", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{7} and \boxed{8", "7"),
        (r"\boxed{7} and \boxed{ }", "7"),
        (r"} \boxed{7}", "7"),
        (r"{ \boxed{7}", "7"),
        (r"\boxed{}", None),
        (r"\boxed 7", None),
        (r"\fbox{7}", None),
        ("", None),
    ],
)
def test_last_box_with_matching_braces_is_read(text, expected):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n```python\nprint(1)\n```\nb", "print(1)\n"),
        ("```python\n1\n```\n```python\n2\n\n```", "2\n\n"),
        ("```python\n1\n```\n```python\n2", "1\n"),
        ("```python\n1\n```python\n2\n```", "2\n"),
        ("```python\r\n1\r\n```", "1\r\n"),
        ("```\n1\n```", None),
        ("```python3\n1\n```", None),
        ("```python\n1", None),
        ("```python 1```", None),
        ("```python\n```", "\n"),
        ("```\ntext\n```\n```python\n3\n```\n```\ntext\n```", "3\n"),
    ],
)
def test_last_closed_python_block_is_read(text, expected):
    assert last_python(text) == expected


def test_last_non_empty_pair_of_tags_is_read():
    text = "<a>1</a> <b>2</b> <a> 3 </a> <b> </b> <a>4"
    assert last_tagged(text, "a") == ("a", "3")
    assert last_tagged(text, "b") == ("b", "2")
    assert last_tagged(text, "a", "b") == ("a", "3")
    assert last_tagged("<b>x</b></a>", "a", "b") == ("b", "x")
    assert last_tagged("<a><a>x</a></a>", "a") == ("a", "x")
    assert last_tagged("<A>x</A>", "a") is None
    assert all_tagged(text, "a") == ["1", "3"]
    assert all_tagged("<a>1</a></a><a></a><a>\n2\n</a>", "a") == ["1", "2"]


def test_unencodable_characters_are_replaced():
    assert last_boxed("\\boxed{\ud800}") == "?"
    assert last_python("```python\n\ud800\n```") == "?\n"
    assert all_tagged("<a>\udfff</a>", "a") == ["?"]


@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed{}", "{", "}", "<a>", "</a>", "```python\n", "```\n", "\\"])
def test_any_text_is_read_in_linear_time(piece):
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    assert last_boxed(text) is None
    assert last_tagged(text, "a", "b") is None
    last_python(text)
    assert time.process_time() - began < 5


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), min_size=1))
def test_a_box_after_anything_is_found(before, answer):
    # A backslash right before would escape the box's own.
    content = last_boxed(f"{before} \\boxed{{{answer}}}")
    assert content == (answer.strip() or last_boxed(before))
