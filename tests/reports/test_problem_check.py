"""Check of problems with their verifier."""

import asyncio

import pytest

from rollmill.generation.manifest import read_manifest
from rollmill.records import Problem, Verdict
from rollmill.reports.problem_check import ProblemCheck, _forms, check_problems, check_run_problems
from rollmill.verifiers import VerifierPool
from tests.generation.run_factory import opened


def problem(name, answer):
    return Problem(instance_id=name, prompt="?", answer=answer)


def check(verifier, *problems):
    return asyncio.run(check_problems(problems, VerifierPool(verifier, accept_error=0.0, workers=1)))


def test_ground_truths_that_are_right_and_empty_answers_that_are_not():
    assert check("numeric", problem("a", "4"), problem("b", "-0.5")) == ProblemCheck(2, [], [])


class Credulous:
    """Accepts anything for problem `b`, and nothing for `a`."""

    name, version = "credulous", "1"

    def verify(self, problem, completion):
        good = problem.instance_id == "b"
        return Verdict(verifier="credulous@1", status="ok", answer=completion, reward=float(good), success=good)


@pytest.mark.timeout(60)
def test_findings_of_a_verifier():
    verifier = f"{__name__}:Credulous"
    assert check(verifier, problem("a", "4"), problem("b", "4")) == ProblemCheck(2, ["a"], ["b"])


def test_a_list_of_ground_truths_is_right_where_one_of_them_is():
    assert list(_forms('["4", "four"]')) == [
        '<answer>["4", "four"]</answer>',
        '["4", "four"]',
        "<answer>4</answer>",
        "4",
        "<answer>four</answer>",
        "four",
    ]
    assert list(_forms("[0, 3)")) == ["<answer>[0, 3)</answer>", "[0, 3)"]


def test_problems_without_an_answer_of_their_own_are_not_checked():
    assert check("numeric", problem("a", None)).checked == 0


def test_a_verdict_that_fails_is_no_finding():
    assert check("numeric", problem("a", "no number")).nothing_passes == []


def test_a_folder_without_a_run_has_no_problems(tmp_path):
    assert check_run_problems(tmp_path) == ProblemCheck()


@pytest.mark.parametrize(("reading", "fails"), [({"answer": "first"}, []), ({}, ["p"])])
def test_the_problems_of_a_run_are_judged_by_its_own_reading(tmp_path, reading, fails):
    with opened(tmp_path, rows=[{"id": "p", "prompt": "?", "answer": "a</think>b"}]):
        pass
    manifest = read_manifest(tmp_path)
    manifest.model_copy(update={"parameters": {"verifier": "exact", **reading}}).write(tmp_path)
    assert check_run_problems(tmp_path).truth_fails == fails
