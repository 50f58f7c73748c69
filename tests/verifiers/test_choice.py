from __future__ import annotations

from typing import Any

import pytest

from rollmill.records import Problem
from rollmill.verifiers.choice import ChoiceVerifier

TEXTS = ["London", "Paris", "Rome", "A small town"]


def problem(answer: str | None = "B", **fields: Any) -> Problem:
    return Problem(instance_id="one", prompt="Which?", answer=answer, fields=fields or {"choices": TEXTS})


RIGHT = [
    "B", "b", "(B)", "B.", "B)", "**B**", "[B]", "The answer is B", "The answer is (B).", "Option B", "Answer: B",
    "answer is: **B**", r"\boxed{B}", r"$\boxed{\text{B}}$", r"So \boxed{(B)}.", "<answer>B</answer>",
    "<answer>(B) Paris</answer>", "<answer>Paris</answer>", "Paris", "paris.", "B. Paris", "(B) Paris", "B: Paris",
    "**B. Paris**", "London is in England, so it is not A.\n\nThe correct answer is **B. Paris**.",
    "A. London is wrong.\nC. Rome is wrong.\nThe answer is B", "B\n\nParis is the capital of France.",
    "B. Because it is the capital of France.", "The answer is A. Wait, no.\nThe answer is B.", "Final answer: B",
    "The correct option is therefore (B).", "I choose B.", "I'd go with option B.", "Option B is correct.",
    "B is the correct answer.", "The answer to the question is B.",
    "The answer is B because A and C are not in France.",
    "The answer is Paris.", "The best choice is: B", r"The answer is $\boxed{B}$",
    "A is a city in England, not France. Hence the answer is B, Paris.", "It's not A.\n**Answer:** B",
    "I would say B", "London is in England, so it must be B.", "That leaves B.", "The answer is C? No, so B.",
    "The capital is **Paris**, larger than London.",
]  # fmt: skip
WRONG = [
    "A", "(C)", "London", "The answer is C", r"\boxed{A}", "A or B", "B or C", "A and B", "A, B", "B/C", "(A) and (B)",
    "The answer is B or C.", "The answer is either A or B", "The answer is B. Or C.", "B, or maybe C", "",
    "<answer>A, B</answer>", r"\boxed{A, B}", "I do not know.", "The answer is not B.", "<answer></answer>",
    "B. London", "The answer is a mammal.", "The answer is B, although it could be C.", "E", "The answer is F",
    "Both A and B are correct.", "London, Paris", r"\boxed{A} or \boxed{C}", "BC", "The answer is B and C.",
    "The answer is B? No, so C.", "The answer is B?", "If it is B, then I err.", "I would not say B",
    "The capital is **Paris** or **Rome**.",
]  # fmt: skip


@pytest.mark.parametrize("completion", RIGHT)
def test_right_choice_is_read_in_usual_forms(completion: str) -> None:
    verdict = ChoiceVerifier().verify(problem(), completion)
    assert (verdict.answer, verdict.reward, verdict.success) == ("B", 1.0, True), verdict


@pytest.mark.parametrize("completion", WRONG)
def test_wrong_several_and_hedged_letters_are_not_right(completion: str) -> None:
    assert not ChoiceVerifier().verify(problem(), completion).success


@pytest.mark.parametrize(
    ("truth", "fields", "letter"),
    [
        ("1", {"choices": TEXTS}, "B"),
        ("0", {"choices": ["1", "2", "3"]}, "A"),
        ("D", {"choices": {"text": TEXTS, "label": ["A", "B", "C", "D"]}}, "D"),
        ("3", {"choices": {"text": TEXTS, "label": ["1", "2", "3", "4"]}}, "C"),
        ("C", {"options": {"A": "x", "B": "y", "C": "z"}}, "C"),
        ("B", {"options": ["A)21", "B)21.5", "C)22"]}, "B"),
        ("Rome", {"choices": TEXTS}, "C"),
        ("B", {"A": "x", "B": "y", "C": "z", "D": "w"}, "B"),
        ("2", {"choices": [{"label": "1", "text": "x"}, {"label": "2", "text": "y"}]}, "B"),
        ("2", {"endings": ["x", "y", "z"]}, "C"),
        ("(b)", {"options": [1, 2.5]}, "B"),
    ],
)
def test_ground_truth_is_converted_to_its_letter(truth: str, fields: dict[str, Any], letter: str) -> None:
    verdict = ChoiceVerifier().verify(problem(truth, **fields), f"The answer is {letter}")
    assert verdict.success


def test_labels_of_the_data_take_precedence() -> None:
    labelled = problem("3", choices={"text": TEXTS, "label": ["1", "2", "3", "4"]})
    assert ChoiceVerifier().verify(labelled, "The answer is C").success
    assert not ChoiceVerifier().verify(labelled, "The answer is B").success


@pytest.mark.parametrize(
    ("answer", "fields", "fault"),
    [
        ("B", {"x": 1}, "there are no choices"),
        (None, {"choices": TEXTS}, "there is no answer"),
        ("E", {"choices": TEXTS}, "answer 'E' is none of the 4 choices"),
        ("4", {"choices": TEXTS}, "answer '4' is none of the 4 choices"),
        ("A", {"choices": ["one"]}, "choices holds 1 choices"),
        ("A", {"choices": ["same", None]}, "choices holds a choice that is no text"),
        ("A", {"choices": "A. x B. y"}, "choices holds no list of choices"),
        ("Paris", {"choices": ["Paris", "paris"]}, "answer 'Paris' is none of the 2 choices"),
    ],
)
def test_problem_that_cannot_be_judged_has_a_reason(answer: str | None, fields: dict[str, Any], fault: str) -> None:
    judged = problem(answer, **fields)
    assert (ChoiceVerifier().problem_fault(judged) or "").startswith(fault)
    with pytest.raises(ValueError, match="one: "):
        ChoiceVerifier().verify(judged, "A")


@pytest.mark.parametrize(
    "piece",
    [
        " - ",
        "\n",
        "_",
        "answer is ",
        "the answer: ",
        "\\boxed{",
        "{",
        "(",
        "A or ",
        "I choose ",
        "the final ",
        "A. x\n",
    ],
)
def test_long_texts_are_read_in_bounded_time(piece: str) -> None:
    for text in (piece * 20_000, f"The answer{piece * 20_000}x", f"a{piece * 20_000}x", f"\\boxed{{{piece * 20_000}"):
        assert not ChoiceVerifier().verify(problem(), text).success
