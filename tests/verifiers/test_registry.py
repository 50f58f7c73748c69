import subprocess
import sys

import pytest

from rollmill.errors import InputError
from rollmill.records import Problem
from rollmill.verifiers import VERIFIERS, is_trusted, make_verifier, make_verifiers, problem_fault
from rollmill.verifiers.numeric import NumericVerifier


@pytest.mark.parametrize("spec", list(VERIFIERS))
def test_built_in_verifiers_have_names_versions_and_faults(spec):
    verifier = make_verifier(spec, accept_error=0.1)
    assert verifier.name == spec
    assert verifier.version[0].isdigit()
    assert spec == "judge" or problem_fault(verifier, Problem(instance_id="p", prompt="?"))


def test_only_fast_verifiers_are_trusted(custom):
    assert [spec for spec in VERIFIERS if is_trusted(make_verifier(spec))] == ["choice", "exact", "numeric"]
    assert is_trusted(make_verifier("rollmill.verifiers.numeric:NumericVerifier"))
    assert not is_trusted(type("Own", (NumericVerifier,), {})())
    assert not is_trusted(make_verifier("unruly:Unruly"))


@pytest.mark.parametrize("spec", ["unruly:Unruly", "unruly.Unruly", "unruly:ready"])
def test_custom_verifier_is_imported_by_path(custom, spec):
    verifier = make_verifier(spec)
    assert (verifier.name, verifier.version) == ("unruly", "1")
    assert problem_fault(verifier, Problem(instance_id="p", prompt="?")) is None


def test_the_accepted_error_is_passed_on(custom):
    assert make_verifier("unruly:Tolerant", accept_error=0.5).version == "1-0.5"
    assert make_verifier("numeric", accept_error=0.5).accept_error == 0.5


def test_an_accepted_error_without_effect_is_reported(custom, caplog):
    make_verifiers("numeric", accept_error=0.5)
    make_verifiers("unruly:Tolerant=1 math=1", accept_error=0.0)
    make_verifiers("functions:value", accept_error=0.5)  # functions are compared with it
    assert not caplog.messages
    make_verifiers("numeric=1 math=1 unruly:Unruly=1", accept_error=0.5)
    assert caplog.messages == ["--accept_error 0.5 has no effect on the verifier math, unruly:Unruly"]


def test_reading_is_passed_to_verifiers_that_have_it(custom):
    assert make_verifier("exact", answer="first").version == "2-first"
    assert make_verifier("numeric", answer="first", strict_numbers=True).version == "1"
    with pytest.raises(InputError, match="'exact' does not accept --strict_numbers: leave it out"):
        make_verifier("exact", strict_numbers=True)
    with pytest.raises(InputError, match="'unruly:Unruly' does not accept --answer first"):
        make_verifier("unruly:Unruly", answer="first")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "nummeric",
            r"'nummeric': use .*exact, .*math, numeric, reasoning_gym, or .*; did you mean numeric\?",
        ),
        ("", "there is no verifier ''"),
        ("unruly:", "there is no verifier 'unruly:'"),
        ("no_such_module:Thing", "cannot import 'no_such_module' .*PYTHONPATH"),
        (".relative:Thing", "cannot import '.relative'"),
        ("unruly:Missing", "the module 'unruly' has no 'Missing'"),
        ("unruly:NeedsMore", "cannot be made: TypeError"),
        ("unruly:NoVersion", "has no version"),
        ("unruly:number", "has no method verify"),
    ],
)
def test_unusable_verifier_is_refused_in_one_line(custom, spec, message):
    with pytest.raises(InputError, match=message) as caught:
        make_verifier(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("accept_error", [-0.1, float("nan"), float("inf")])
def test_the_accepted_error_is_a_distance(accept_error):
    with pytest.raises(InputError, match="accept_error must be a number from 0"):
        make_verifier("numeric", accept_error=accept_error)


def test_heavy_packages_are_not_imported():
    code = """
import sys
from rollmill.verifiers import VERIFIERS, make_verifier
for spec in VERIFIERS: make_verifier(spec)
print([name for name in ("sympy", "math_verify", "reasoning_gym", "prefect") if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
