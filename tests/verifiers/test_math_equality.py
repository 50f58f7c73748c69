import importlib.metadata
import logging

import pytest

from rollmill.verifiers.math_equality import MathVerifier


def test_its_version_belongs_to_one_release_of_math_verify():
    found = (MathVerifier.version, importlib.metadata.version("math-verify"))
    assert found == ("1", "0.9.0"), "another math-verify judges otherwise: raise the verifier's version"


@pytest.mark.parametrize(
    ("truth", "completion", "right"),
    [
        (r"\frac{1}{2}", "So it is $0.5$.", True),
        (r"\frac{1}{2}", r"first $3$, then \boxed{\frac12}", True),
        ("1/2", "<answer>0.5</answer>", True),
        ("x^2+2x+1", "<answer>(x+1)^2</answer>", True),
        ("x^2+1", "<answer>x^2-1</answer>", False),
        ("$x^2+1$", r"<answer>\boxed{1+x^2}</answer>", True),
        ("(0,1)", "<answer>[0,1]</answer>", False),
        (r"\{1,2\}", r"<answer>\{2,1\}</answer>", True),
        ("1.5e3", "<answer>1500</answer>", True),
        ("1000", "<answer>1,000</answer>", True),
        ("5", "<answer>x=5</answer>", True),
        ("7", "the answer is 8", False),
        (r"\text{Tuesday}", r"\boxed{\text{Tuesday}}", True),
        ("7", "<answer>I do not know</answer> it is 7", False),
    ],
)
def test_mathematics_is_compared(make_problem, truth, completion, right):
    verdict = MathVerifier().verify(make_problem(truth), completion)
    assert (verdict.status, verdict.success, verdict.distance) == ("ok", right, float(not right))
    assert verdict.answer


@pytest.mark.parametrize("completion", ["", "I give up", "7 <answer></answer>"])
def test_no_mathematics_is_unparseable(make_problem, completion):
    verdict = MathVerifier().verify(make_problem("7"), completion)
    assert (verdict.status, verdict.distance) == ("unparseable", None)
    assert verdict.reason


def test_a_faulty_ground_truth_is_named(make_problem):
    verifier = MathVerifier()
    assert verifier.problem_fault(make_problem(None)) == "there is no answer"
    assert verifier.problem_fault(make_problem("7")) is None
    with pytest.raises(ValueError, match="p-1: there is no answer"):
        verifier.verify(make_problem(" "), "7")
    with pytest.raises(ValueError, match=r"p-1: answer '}{' is not mathematics"):
        verifier.verify(make_problem("}{"), "7")


def test_its_time_limits_are_off_without_a_word(make_problem, caplog):
    with caplog.at_level(logging.WARNING):
        MathVerifier().verify(make_problem("7"), "7")
    assert caplog.text == ""
