"""Compare the verifiers' verdicts with a person's on the same completions."""

import json
from pathlib import Path

import pytest

from rollmill.records import Problem
from rollmill.verifiers import make_verifier

CASES = Path(__file__).parent / "cases"


def cases(name):
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text().splitlines()]


def disagreements(verifier, rows, truth="truth"):
    """Return ground truth, completion and the person's verdict for each disagreement."""
    judged = make_verifier(verifier)
    return [
        (row[truth], row["completion"], row["right"])
        for row in rows
        if judged.verify(Problem(instance_id="p", prompt="?", answer=row[truth]), row["completion"]).success
        != row["right"]
    ]


@pytest.mark.parametrize("truth", ["truth", "solution"])
def test_numeric_judges_gsm8k_as_a_person(truth):
    assert disagreements("numeric", cases("gsm"), truth) == []


def test_numeric_judges_other_notations_as_a_person():
    assert disagreements("numeric", cases("numeric")) == []


@pytest.mark.parametrize("truth", ["truth", "solution"])
def test_math_judges_gsm8k_as_a_person(truth):
    assert disagreements("math", cases("gsm"), truth) == []


def test_math_judges_the_form_of_math_as_a_person():
    assert disagreements("math", cases("math_form")) == []


@pytest.mark.slow  # half a thousand simplifications
def test_math_judges_expressions_as_a_person():
    assert disagreements("math", cases("math")) == []


@pytest.mark.parametrize("truth", ["truth", "solution"])
def test_exact_accepts_nothing_wrong(truth):
    assert all(right for _, _, right in disagreements("exact", cases("gsm"), truth))
