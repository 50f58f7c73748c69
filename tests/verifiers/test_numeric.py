import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.records import Problem
from rollmill.verifiers.numeric import NumericVerifier

any_text = st.text(st.characters(exclude_categories=()))
number_like = st.text(st.sampled_from("0123456789.+-eE_,infaNx ١٢"), max_size=12)


def problem(answer: str | None = "7") -> Problem:
    return Problem(instance_id="p-1", prompt="?", answer=answer)


@pytest.mark.parametrize(
    ("text", "error"),
    [("7", 0), (" 7 ", 0), ("7.", 0), ("+7.0", 0), ("3.5", 3.5), ("1e3", 993), ("-.5E1", 12), ("0007", 0), ("7\n", 0)],
)
def test_numbers_are_read(text, error):
    verdict = NumericVerifier().verify(problem(), f"<answer>{text}</answer>")
    assert (verdict.status, verdict.distance, verdict.success) == ("ok", error, error == 0)
    assert (verdict.verifier, verdict.answer, verdict.reward) == ("numeric@1", text.strip(), float(error == 0))


@pytest.mark.parametrize(
    "text",
    ["7 apples", "", "1_000", "1,000", "٧", "７", "seven", "0x7", "$7", "7%", "1e", "e5", ".", "--7", "1 2", "7</b>"],
)
def test_other_text_is_no_number(text):
    verdict = NumericVerifier().verify(problem(), f"<answer>{text}</answer>")
    assert (verdict.status, verdict.distance, verdict.answer, verdict.reward) == ("unparseable", None, None, 0)
    assert "is not a number" in verdict.reason


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_what_is_not_finite_is_refused(text):
    verdict = NumericVerifier(accept_error=1e9).verify(problem(), f"<answer>{text}")
    assert verdict.status == "unparseable"
    assert "is not a finite number" in verdict.reason


def test_without_a_tag_there_is_no_answer():
    verdict = NumericVerifier().verify(problem(), "7")
    assert (verdict.status, verdict.reason) == ("unparseable", "there is no <answer> tag")


def test_the_accepted_error_is_inside():
    verifier = NumericVerifier(accept_error=0.1)
    assert verifier.verify(problem("3.3"), "<answer>3.4</answer>").success
    assert not verifier.verify(problem("3.3"), "<answer>3.4001</answer>").success


def test_a_distance_beyond_every_float_stays_a_number():
    verdict = NumericVerifier().verify(problem("-1.7e308"), "<answer>1.7e308</answer>")
    assert verdict.distance == 1.7976931348623157e308


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("abc", "answer 'abc' is not a number"),
        ("nan", "answer 'nan' is not a finite number"),
        ("", "answer '' is not a number"),
        (None, "there is no answer"),
        (" 7 ", None),
    ],
)
def test_a_faulty_ground_truth_is_named(answer, fault):
    verifier = NumericVerifier()
    assert verifier.problem_fault(problem(answer)) == fault
    if fault:
        with pytest.raises(ValueError, match="p-1: " + fault):
            verifier.verify(problem(answer), "<answer>7</answer>")


@given(any_text | number_like, st.booleans(), st.floats(0, 1e308))
def test_no_text_raises_and_every_error_is_finite(text, tagged, accept_error):
    verdict = NumericVerifier(accept_error=accept_error).verify(problem(), f"<answer>{text}" if tagged else text)
    assert (verdict.status == "ok") == (verdict.distance is not None)
    assert verdict.distance is None or math.isfinite(verdict.distance)
    assert verdict.reward == float(verdict.success)
    verdict.model_dump_json()


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(truth, answer):
    verdict = NumericVerifier().verify(problem(repr(truth)), f"<answer>{answer!r}</answer>")
    assert verdict.success == (truth == answer)


@given(number_like.filter(lambda text: "<" not in text), any_text)
def test_what_follows_the_first_pair_changes_nothing(inside, after):
    verifier = NumericVerifier()
    first = f"<answer>{inside}</answer>"
    assert verifier.verify(problem(), first + after) == verifier.verify(problem(), first)


def test_it_costs_microseconds():
    verifier, asked = NumericVerifier(), problem()
    completion = "let me think. " * 50 + "<answer>7.5</answer>"
    start = time.perf_counter()
    for _ in range(2000):
        verifier.verify(asked, completion)
    assert (time.perf_counter() - start) / 2000 < 100e-6  # about 5 on an idle machine
