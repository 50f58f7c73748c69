import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.verifiers.answer_tag import after_thoughts, answer_or_all, encodable, tagged_answer

any_text = st.text(st.characters(exclude_categories=()))
plain_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="<>|◁｜[")).map(str.strip)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>3.5</answer>", "3.5"),
        ("so <answer> \n 7\t</answer> it is", "7"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1</answer>, no: <answer>2", "2"),
        ("<answer>8", "8"),
        ("</answer><answer>4</answer>", "4"),
        ("<Answer>4</ANSWER >", "4"),
        ("in <answer> tags: <answer>4</answer>", "4"),
        ("<answer>4</answer>, in <answer> tags", "4"),
        ("<answer>4</answer>, in `<answer>`", "4"),
        ("<answer></answer> tags: <answer>4</answer>", "4"),
        ("<answer>4</answer> as <answer>...</answer>", "4"),
        ("<answer>your answer here</answer><answer>4</answer>", "4"),
        ("<answer><answer>4</answer></answer>", "4"),
        ("<answer>4</answer><|im_end|>\n", "4"),
        ("<answer>", ""),
        ("7 <answer></answer>", ""),
        ("7 <answer>...</answer>\n", ""),
        ("<answer></answer> tags: 7", None),
        ("</answer>", None),
        ("", None),
    ],
)
def test_last_pair_with_an_answer_is_read(completion, answer):
    assert tagged_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>1</answer><answer>2</answer>", "1"),
        ("<think><answer>1</answer></think><answer>2</answer>", "1"),
        ("<think><answer>1", "1"),
        ("<answer></answer><answer>2</answer>", ""),
        ("<Answer>4</Answer>", None),
        ("in <answer> tags: <answer>4</answer>", "tags: <answer>4"),
    ],
)
def test_first_reading_takes_the_first_pair(completion, answer):
    assert tagged_answer(completion, "first") == answer


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<Thought>", "</Thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel>thought\n", "<channel|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("analysisWe ", "assistantfinal"),
    ],
)
def test_reasoning_is_removed(before, after):
    thought = f"{before}perhaps <answer>1</answer>"
    assert tagged_answer(f"{thought}{after}<answer>2</answer>") == "2"
    assert answer_or_all(f"{thought}{after} 2 ") == "2"
    assert (tagged_answer(thought), answer_or_all(thought)) == (None, "")


def test_reasoning_may_begin_in_the_prompt():
    assert answer_or_all("perhaps <answer>1</answer></think>\n2") == "2"


def test_unclosed_reasoning_has_no_answer():
    assert after_thoughts("<think>a</think><answer>1</answer><think>b") is None


def test_without_tags_the_whole_text_is_the_answer():
    assert answer_or_all("  yes\n") == "yes"
    assert answer_or_all("  no <answer> yes </answer>") == "yes"


@given(plain_text, plain_text.filter(lambda text: text.strip(" .…_*-") and "answer" not in text.lower()), plain_text)
def test_single_pair_is_read_at_any_position(before, inside, after):
    assert tagged_answer(f"{before}\n<answer>{inside}</answer>\n{after}") == encodable(inside.strip())


@given(any_text)
def test_answers_are_encodable_as_utf_8(text):
    answer_or_all(text).encode()
    answer_or_all(f"<answer>{text}").encode()
