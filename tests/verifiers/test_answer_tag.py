import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.verifiers.answer_tag import answer_or_all, encodable, tagged_answer

any_text = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>3.5</answer>", "3.5"),
        ("so <answer> \n 7\t</answer> it is", "7"),
        ("<answer>1</answer><answer>2</answer>", "1"),
        ("<answer>8", "8"),
        ("<answer>", ""),
        ("<answer></answer>", ""),
        ("</answer><answer>4</answer>", "4"),
        ("</answer>", None),
        ("", None),
        ("<Answer>4</Answer>", None),
        ("in <answer> tags: <answer>4</answer>", "tags: <answer>4"),
    ],
)
def test_the_first_pair_is_read(completion, answer):
    assert tagged_answer(completion) == answer


def test_without_tags_all_is_the_answer():
    assert answer_or_all("  yes\n") == "yes"
    assert answer_or_all("  no <answer> yes </answer>") == "yes"


@given(any_text.filter(lambda text: "<" not in text), any_text.filter(lambda text: "<" not in text), any_text)
def test_the_first_pair_wins(before, inside, after):
    assert tagged_answer(f"{before}<answer>{inside}</answer>{after}") == encodable(inside.strip())


@given(any_text)
def test_answers_can_be_written_as_utf_8(text):
    answer_or_all(text).encode()
    answer_or_all(f"<answer>{text}").encode()
