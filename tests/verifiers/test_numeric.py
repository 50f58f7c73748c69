import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rollmill.records import Problem
from rollmill.verifiers.numeric import NumericVerifier

any_text = st.text(st.characters(exclude_categories=()))
number_like = st.text(st.sampled_from("0123456789.+-eE_,infaNx ١٢"), max_size=12)


def problem(answer: str | None = "7") -> Problem:
    return Problem(instance_id="p-1", prompt="?", answer=answer)


def dressed(number):
    """Return notations of the same number, made from a decimal's text."""
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    integer, point, rest = digits.partition(".")
    grouped = f"{int(integer):,}"
    return [
        number,
        f"+{number}" if not sign else f"\u2212{digits}",
        f"{sign}{grouped}{point}{rest}",
        f"**{number}**",
        f"`{number}`",
        f"{sign}${digits}",
        f"{sign}\\${digits}",
        f"{number} km",
        f"{number}\\text{{ km}}",
        f"${number}$",
        f"\\({number}\\)",
        f"\\boxed{{{number}}}",
        f"$\\boxed{{{number}}}$",
        f"= {number}",
        f"x = {number}",
        f"about {number}",
        f"USD {number}",
        f"The answer is {number}",
        f"Answer: {number}",
        f"{sign}{grouped.replace(',', ' ')}{point}{rest}",
        f"{sign}{grouped.replace(',', '{,}')}{point}{rest}",
        f"{number}%",
        f"{number} percent",
        f"{number} rolls are left",
        f"\\frac{{{sign}{digits}}}{{1}}" if not point else number,
        f"{number} \\times 10^0",
        f"{number}e0",
    ]


numbers = st.integers(-(10**9), 10**9).map(str) | st.decimals(-(10**6), 10**6, places=2).map(str)


@given(numbers, st.data())
def test_right_number_is_accepted_in_every_notation(number, data):
    text = data.draw(st.sampled_from(dressed(number)))
    for completion in (f"<answer>{text}</answer>", f"The final answer is {text}.", f"Some words.\n#### {text}"):
        assert NumericVerifier().verify(problem(number), completion).success, completion


@given(numbers, numbers, st.data())
def test_wrong_number_is_rejected_in_every_notation(number, truth, data):
    assume(float(number) != float(truth))
    text = data.draw(st.sampled_from(dressed(number)))
    for completion in (f"<answer>{text}</answer>", f"The final answer is {text}.", f"Some words.\n#### {text}", text):
        assert not NumericVerifier().verify(problem(truth), completion).success, completion


@given(numbers, numbers, st.sampled_from([" or ", ". Or ", ", maybe ", " to ", "; ", ", ", " and ", "-", " = ", ":"]))
def test_two_numbers_are_rejected(number, other, between):
    assume(float(number) != float(other))
    for truth in (number, other):
        completion = f"<answer>{number}{between}{other}</answer>"
        assert not NumericVerifier().verify(problem(truth), completion).success, completion


@pytest.mark.parametrize(
    ("truth", "numbers"),
    [
        ("The half is <<48/2=24>>24.\n#### 24", ["24"]),
        ("#### 13,900", ["13900"]),
        ("So it is $\\boxed{\\frac{3}{4}}$.", ["0.75", "3/4"]),
        ("1,234,567", ["1234567"]),
        ("$12.50", ["12.5"]),
        ('["5", "7"]', ["5", "7"]),
        ("[5, 7.5]", ["5", "7.5"]),
        ("75%", ["75", "0.75", "75%"]),
    ],
)
def test_ground_truths_are_read_as_data_sets_write_them(truth, numbers):
    verifier = NumericVerifier()
    assert verifier.problem_fault(problem(truth)) is None
    assert all(verifier.verify(problem(truth), f"<answer>{number}</answer>").success for number in numbers)
    assert not verifier.verify(problem(truth), "<answer>48</answer>").success


def test_one_of_several_ground_truths_is_enough():
    several = problem("5").model_copy(update={"equivalent_answers": ("7",)})
    verdicts = [NumericVerifier().verify(several, f"<answer>{number}</answer>") for number in (5, 6, 7)]
    assert [(verdict.success, verdict.distance) for verdict in verdicts] == [(True, 0), (False, 1), (True, 0)]


STRICT = NumericVerifier(answer="first", strict_numbers=True)


def test_each_reading_has_a_version():
    readings = [(answer, strict) for answer in ("last", "first") for strict in (False, True)]
    versions = [NumericVerifier(answer=answer, strict_numbers=strict).version for answer, strict in readings]
    assert versions == ["2", "2-strict", "2-first", "1"]


@pytest.mark.parametrize(
    ("text", "error"),
    [("7", 0), (" 7 ", 0), ("7.", 0), ("+7.0", 0), ("3.5", 3.5), ("1e3", 993), ("-.5E1", 12), ("0007", 0), ("7\n", 0)],
)
def test_bare_numbers_are_read_strictly(text, error):
    verdict = STRICT.verify(problem(), f"<answer>{text}</answer>")
    assert (verdict.status, verdict.distance, verdict.success) == ("ok", error, error == 0)
    assert (verdict.verifier, verdict.answer, verdict.reward) == ("numeric@1", text.strip(), float(error == 0))


@pytest.mark.parametrize(
    "text",
    ["7 apples", "", "1_000", "1,000", "٧", "７", "seven", "0x7", "$7", "7%", "1e", "e5", ".", "--7", "1 2", "7</b>"],
)
def test_strict_reading_rejects_other_texts(text):
    verdict = STRICT.verify(problem(), f"<answer>{text}</answer>")
    assert (verdict.status, verdict.distance, verdict.answer, verdict.reward) == ("unparseable", None, None, 0)
    assert "is not a number" in verdict.reason


@pytest.mark.parametrize(
    "text", ["1e", "e5", ".", "--7", "0x7", "1.250,00", "12,5", "5K", "7!", "7?", "3/0", "2024-01-05"]
)
def test_ambiguous_text_is_not_a_number(text):
    assert NumericVerifier().verify(problem(), f"<answer>{text}</answer>").status == "unparseable"


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_non_finite_number_is_refused(text):
    verdict = NumericVerifier(accept_error=1e9).verify(problem(), f"<answer>{text}")
    assert verdict.status == "unparseable"


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_non_finite_number_is_named_strictly(text):
    assert "is not a finite number" in STRICT.verify(problem(), f"<answer>{text}").reason


def test_without_a_tag_there_is_no_strict_answer():
    verdict = STRICT.verify(problem(), "7")
    assert (verdict.status, verdict.reason) == ("unparseable", "there is no <answer> tag")


def test_error_equal_to_accept_error_is_a_success():
    verifier = NumericVerifier(accept_error=0.1)
    assert verifier.verify(problem("3.3"), "<answer>3.4</answer>").success
    assert not verifier.verify(problem("3.3"), "<answer>3.4001</answer>").success


def test_distance_beyond_the_largest_float_is_finite():
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
def test_first_reading_ignores_text_after_the_first_pair(inside, after):
    first = f"<answer>{inside}</answer>"
    assert STRICT.verify(problem(), first + after) == STRICT.verify(problem(), first)
