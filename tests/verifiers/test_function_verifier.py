"""Users' functions as verifiers."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.verifiers import VerifierPool, make_verifier
from tests.verifiers.test_pool import ask

SOURCE = Path(__file__).parent / "custom/functions.py"


def judge(make_problem, completion, **settings):
    return make_verifier("functions:value", **settings).verify(make_problem(), completion)


@pytest.mark.parametrize(
    ("completion", "reward", "distance", "success"),
    [
        ("half", 0.5, 0.5, False),
        ("one", 1.0, 0.0, True),
        ("more", 2.5, 0.0, True),
        ("less", -3.0, 4.0, False),
        ("true", 1.0, 0.0, True),
        ("false", 0.0, 1.0, False),
        ("numpy", 0.5, 0.5, False),
        ("numpy_bool", 1.0, 0.0, True),
    ],
)
def test_a_number_is_the_reward(custom, make_problem, completion, reward, distance, success):
    verdict = judge(make_problem, completion)
    assert (verdict.reward, verdict.distance, verdict.success) == (reward, distance, success)


@pytest.mark.parametrize(("accept_error", "success"), [(0.4, False), (0.5, True)])
def test_the_accepted_error_is_the_distance_from_the_full_reward(custom, make_problem, accept_error, success):
    assert judge(make_problem, "half", accept_error=accept_error).success is success


def test_returned_verdict_is_kept_with_the_functions_version(custom, make_problem):
    verdict = judge(make_problem, "verdict")
    assert (verdict.status, verdict.reason) == ("unparseable", "no number")
    assert verdict.verifier == f"value@{make_verifier('functions:value').version}"


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ("none", "value returned NoneType, not a number"),
        ("text", "value returned str, not a number"),
        ("decimal", "value returned Decimal, not a number"),
        ("nan", "value returned nan, which is no finite number"),
        ("infinity", "value returned inf, which is no finite number"),
        ("several", "can only convert an array of size 1"),
        ("unknown", "KeyError: 'unknown'"),
    ],
)
def test_result_that_is_no_finite_number_fails_alone(custom, make_problem, completion, message):
    (failure, answer) = ask(make_problem(), completion, "true", spec="functions:value")
    assert failure.type == "verifier_raised"
    assert message in failure.message
    assert answer is None  # a function reads no answer


def test_function_runs_in_a_worker_as_classes_do(custom, make_problem, capfd):
    pid, printed, forked, left, again = ask(
        make_problem(), "pid", "prints", "forks", "leaves", "pid", spec="functions:unruly"
    )
    assert (printed, forked, left.type) == ("printed", "parent", "verifier_died")
    assert pid != again
    assert capfd.readouterr().out == ""


def test_function_that_exceeds_its_limit_is_killed(custom, make_problem):
    late, fine = ask(make_problem(), "sleeps", "fine 1", spec="functions:unruly", time_limit_s=0.5)
    assert (late.type, fine) == ("verifier_timeout", "1")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("functions:value", "value"),
        ("functions.value", "value"),
        ("functions:wrapped", "value"),
        ("functions:partly", "value"),
        ("functions:called", "Called"),
    ],
)
def test_the_version_is_a_hash_of_the_file_that_defines_it(custom, spec, name):
    verifier = make_verifier(spec)
    version = f"source-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    assert (verifier.name, verifier.version) == (name, version)


def test_version_hashes_the_naming_and_the_defining_module(custom):
    content = SOURCE.with_name("renaming.py").read_bytes() + SOURCE.read_bytes()
    assert make_verifier("renaming:stricter").version == f"source-{hashlib.sha256(content).hexdigest()[:12]}"


def test_verifier_version_is_part_of_the_runs_identity(custom):
    async def identity():
        async with VerifierPool("functions:pinned", accept_error=0.0) as pool:
            return pool.identity["verifier"]

    assert asyncio.run(identity()) == "functions:pinned (pinned@3)"


@pytest.mark.parametrize("spec", ["functions:Called", "functions:called", "functions:partly", "functions:wrapped"])
def test_callable_objects_are_accepted_as_functions(custom, make_problem, spec):
    assert make_verifier(spec).verify(make_problem(), "true").success


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("functions:needs_three", "cannot be called with a problem and a completion: missing a required argument: 'mo"),
        ("functions:later", "is asynchronous: give a plain function"),
        ("functions:wrongly_pinned", "its verifier_version is no text"),
        ("functions:built_in", "source cannot be read, .*: set built_in.verifier_version"),
    ],
)
def test_a_function_that_cannot_judge_is_refused_before_anything_starts(custom, spec, message):
    with pytest.raises(InputError, match=message):
        VerifierPool(spec, accept_error=0.0)
