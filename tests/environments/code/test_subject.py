from __future__ import annotations

from typing import Any

import pytest

from rollmill.environments.code.environment import CodeEnvironment, CodeSettings
from rollmill.environments.code.examples import example_tests
from rollmill.environments.code.subject import read_subject
from rollmill.records import Image, Problem
from tests.environments.code.conftest import make_problem


def mbpp(**fields: Any) -> Problem:
    defaults = {
        "code": "import re\ndef first_word(text):\n    return re.split(' ', text)[0]\n",
        "test_list": ["assert first_word('a b') == 'a'", "assert first_word(str(1)) == '1'"],
        "test_setup_code": "",
    }
    return Problem(instance_id="601", prompt="Write a function to find the first word.", fields={**defaults, **fields})


def test_a_problem_of_human_eval() -> None:
    problem = make_problem()
    subject = read_subject(problem)
    assert (subject.entry, subject.names) == ("larger", ("larger",))
    assert subject.prelude == problem.prompt
    assert subject.signature == "def larger(a, b):"
    assert subject.reference == f"{problem.prompt}{problem.fields['canonical_solution']}"
    assert example_tests(subject) == "assert larger(1, 2) == 2\n"


def test_a_problem_of_mbpp() -> None:
    subject = read_subject(mbpp())
    assert (subject.names, subject.prelude) == (("first_word",), "")
    assert subject.signature == "def first_word(text):"
    assert subject.truth == "assert first_word('a b') == 'a'\nassert first_word(str(1)) == '1'"
    assert subject.reference == mbpp().fields["code"]
    assert example_tests(subject) == ""


def test_called_names_belong_to_the_code_unless_defined_elsewhere() -> None:
    tests = "import math\ndef near(a): return abs(a)\nassert near(go(1) - helped(2)) < math.pi and two(go(1))"
    subject = read_subject(mbpp(test=tests, test_setup_code="def helped(n): return n"))
    assert subject.names == ("go", "two")
    assert subject.prelude == "def helped(n): return n"
    assert subject.reference is None
    assert subject.signature == "def go(...):"


def test_the_answer_is_a_reference_where_the_fields_have_none() -> None:
    problem = mbpp(code=None).model_copy(update={"answer": "first_word = lambda text: text.split()[0]"})
    assert read_subject(problem).reference == "first_word = lambda text: text.split()[0]"


@pytest.mark.parametrize(
    ("problem", "fault"),
    [
        (mbpp(test_list=[]), "fields.test and fields.test_list are missing or no text"),
        (mbpp(test="assert f("), "its tests are no Python"),
        (mbpp(test="f(1)"), "its tests have no assert"),
        (mbpp(test="assert 1 == 1"), "fields.entry_point is missing, and the tests call nothing"),
        (mbpp(entry_point="a b"), "fields.entry_point is no name"),
        (
            make_problem(entry_point=None),
            "fields.entry_point is missing, and check(candidate) does not name it",
        ),
        (
            make_problem().model_copy(update={"images": (Image(path="x", media_type="image/png", sha256="0"),)}),
            "it has images, and this environment shows text alone",
        ),
    ],
)
def test_unusable_problem_is_refused_with_a_reason(problem: Problem, fault: str) -> None:
    assert CodeEnvironment.problem_fault(CodeSettings(), problem) == fault


def test_examples_with_a_result_become_tests() -> None:
    prompt = (
        "def f(a):\n"
        '    """Does it.\n'
        "    >>> import math\n"
        "    >>> f(1)  # one\n"
        "    [1,\n"
        "     2]\n"
        "    >>> f('a\\\\n')\n"
        "    <object>\n"
        "    >>> f(None)\n"
        "    Traceback (most recent call last):\n"
        "    ValueError: no\n"
        '    """\n'
    )
    subject = read_subject(make_problem(entry_point="f").model_copy(update={"prompt": prompt}))
    assert example_tests(subject) == ("import math\nassert f(1) == [1, 2]\nassert repr(f('a\\n')) == '<object>'\n")
    plain = read_subject(mbpp().model_copy(update={"prompt": "First word:\n\n>>> first_word('a b')\n'a'\n"}))
    assert example_tests(plain) == "assert first_word('a b') == 'a'\n"
