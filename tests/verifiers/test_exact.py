import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.verifiers.exact import ExactVerifier


@pytest.mark.parametrize(
    ("truth", "completion", "right"),
    [
        ("Paris", "Paris", True),
        ("Paris", " \nParis\t", True),
        ("Paris", "I say <answer>Paris</answer>.", True),
        ("Paris", "paris", False),
        ("Paris", "It is Paris", False),
        ("New York", "New \n  York", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("x\u00b2", "x2", False),
    ],
)
def test_texts_are_compared(make_problem, truth, completion, right):
    verdict = ExactVerifier().verify(make_problem(truth), completion)
    assert (verdict.success, verdict.distance, verdict.reward) == (right, float(not right), float(right))


@pytest.mark.parametrize("completion", ["", " \n", "Paris <answer> </answer>"])
def test_an_empty_answer_is_unparseable(make_problem, completion):
    verdict = ExactVerifier().verify(make_problem("Paris"), completion)
    assert (verdict.status, verdict.distance, verdict.reason) == ("unparseable", None, "the answer is empty")


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_a_missing_ground_truth_is_named(make_problem, answer):
    verifier = ExactVerifier()
    assert verifier.problem_fault(make_problem(answer)) == "there is no answer"
    with pytest.raises(ValueError, match="p-1: there is no answer"):
        verifier.verify(make_problem(answer), "x")


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_raises(text):
    from rollmill.records import Problem

    verdict = ExactVerifier().verify(Problem(instance_id="p", prompt="?", answer="7"), text)
    verdict.model_dump_json()
