"""Several verifiers with weights."""

from __future__ import annotations

import asyncio

import pytest

from rollmill.config.command_line import parse_command_line
from rollmill.errors import InputError
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.records import Problem, Verdict
from rollmill.verifiers import VerifierFailed, open_verifiers
from rollmill.verifiers.registry import check_verifiers, read_verifiers

PROBLEM = Problem(instance_id="p", prompt="?", answer="5")


def judge(spec: str, completion: str) -> Verdict:
    async def run() -> Verdict:
        async with open_verifiers(spec, accept_error=0.0) as verifiers:
            return await verifiers.verify(PROBLEM, completion)

    return asyncio.run(run())


def test_rewards_add_up_by_weights_and_each_verdict_is_recorded() -> None:
    verdict = judge("numeric=0.6 exact=0.2", "<answer>5.0</answer>")
    assert (verdict.reward, verdict.success, verdict.status) == (pytest.approx(0.75), False, "ok")
    assert verdict.metadata is not None
    recorded = [(each["verifier"], each["weight"], each["reward"]) for each in verdict.metadata["verdicts"]]
    assert [name.partition("@")[0] for name, _, _ in recorded] == ["numeric", "exact"]
    assert [row[1:] for row in recorded] == [(0.6, 1.0), (0.2, 0.0)]
    assert judge("numeric=0.6 exact=0.2", "<answer>5</answer>").success


def test_single_verifier_is_not_wrapped() -> None:
    verdict = judge("exact", "5")
    assert "metadata" not in verdict.model_dump()
    assert open_verifiers("exact", accept_error=0.0).identity == {"verifier": "exact@2", "accept_error": 0.0}


def test_identity_has_all_verifiers_with_their_weights() -> None:
    identity = open_verifiers("choice=2 exact=0.5", accept_error=0.1).identity
    assert identity == {"verifier": "choice@1=2 exact@2=0.5", "accept_error": 0.1}


def test_options_are_passed_to_verifiers_that_have_them() -> None:
    readings = {"accept_error": 0.0, "answer": "first", "strict_numbers": True}
    assert open_verifiers("numeric=1 exact=1", **readings).identity["verifier"] == "numeric@1=1 exact@2-first=1"
    with pytest.raises(InputError, match=r"none of the verifiers accepts --answer first: leave it out"):
        open_verifiers("choice=1 code=1", accept_error=0.0, answer="first")


def test_failure_of_one_verifier_leaves_no_verdict() -> None:
    with pytest.raises(VerifierFailed, match="there are no choices"):
        judge("exact=1 choice=1", "5")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("math exact", "math has no weight: give each of several verifiers one, as in math=0.8 code=0.2"),
        ("math=0.8 exact", "exact has no weight"),
        ("math=0 exact=1", "the weight must be a number above 0, not 0"),
        ("math=-1 exact=1", "the weight must be a number above 0, not -1"),
        ("math=nan exact=1", "the weight must be a number above 0, not nan"),
        ("math=inf", "the weight must be a number above 0, not inf"),
        ("math=much exact=1", "the weight must be a number above 0, not much"),
        ("math=1 math=2", "math is given twice"),
        ("mth=1 exact=1", "no such verifier"),
        ("", "no such verifier"),
    ],
)
def test_faults_of_weighted_specs_are_reported(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_verifiers(spec)


def test_specs_have_a_canonical_form() -> None:
    assert check_verifiers("  math=0.80   exact=2 ") == "math=0.8 exact=2"
    assert check_verifiers("math=3") == "math"
    assert [each.spec for each in read_verifiers("own.module:Name=1 exact=1")] == ["own.module:Name", "exact"]


@pytest.mark.parametrize("flags", [["math=0.8", "exact=0.2"], ["math=0.8 exact=0.2"]])
def test_the_command_line_takes_several(flags: list[str]) -> None:
    argv = ["--model_path", "m", "--model_name", "n", "--verifier", *flags]
    parameters = parse_command_line(RejectSampling, argv, prog="x", description="", examples="", environ={})
    assert parameters.verifier == "math=0.8 exact=0.2"
