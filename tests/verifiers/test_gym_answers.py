import ast
import inspect
import json
import re
import textwrap

import pytest

from rollmill.problems import gym
from rollmill.verifiers.gym_answers import LONGEST_ANSWER, REVIEWED, answer_fault, executes_answers
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier
from tests.verifiers.gym_entries import EVALUATING, fault, make_gym_entry, score


def right_answer(entry):
    metadata = entry["metadata"]
    if "possible_answer" in metadata:
        return json.dumps(metadata["possible_answer"])
    for key in ("example_correct_answer", "example_answer"):
        if key in metadata:
            return metadata[key]
    return entry["answer"]


def test_which_scorers_evaluate():
    assert [name for name in sorted(REVIEWED) if executes_answers(name)] == EVALUATING
    assert executes_answers("composite")
    assert executes_answers("a_data_set_of_another_release")


def check_right_answers(name, seeds, count):
    for seed in seeds:
        for index in range(count):
            dataset, entry, problem = make_gym_entry(name, seed, index)
            answer = right_answer(entry)
            if answer is None:  # boxnet and rush_hour know none
                continue
            if "Integral" not in answer:  # sympy's own, where it gave up: right as it stands, and not otherwise
                assert answer_fault(name, answer, {**entry, "answer": "another"}) is None
            verdict = ReasoningGymVerifier().verify(problem, f"<answer>{answer}</answer>")
            assert (verdict.status, verdict.reward) == ("ok", dataset.score_answer(answer.strip(), entry))


@pytest.mark.parametrize("name", sorted(REVIEWED - {"knight_swap"}))
def test_right_answers_are_scored_as_before(name):
    check_right_answers(name, seeds=[7], count=2)


@pytest.mark.slow  # makes six hundred entries
@pytest.mark.parametrize("name", sorted(REVIEWED))
def test_right_answers_of_more_entries_are_scored_as_before(name):
    check_right_answers(name, seeds=[1, 2], count=1 if name == "knight_swap" else 3)


@pytest.mark.parametrize("name", EVALUATING)
def test_answer_of_the_entry_itself_scores_in_full(name):
    for index in range(4):
        _, entry, problem = make_gym_entry(name, index=index)
        assert ReasoningGymVerifier().verify(problem, entry["answer"]).success


@pytest.mark.parametrize(
    "name",
    [
        ("polynomial_multiplication", {"max_degree": 40, "min_degree": 30, "max_terms": 12, "min_terms": 10}),
        ("simple_integration", {"max_terms": 20, "min_terms": 15, "max_degree": 100}),
        ("spiral_matrix", {"min_n": 80, "max_n": 80}),
        ("countdown", {"min_numbers": 12, "max_numbers": 12, "max_target": 100_000}),
    ],
    ids=lambda pair: pair[0],
)
def test_large_problems_have_large_answers(name):
    name, config = name
    for index in range(3):
        entry = make_gym_entry(name, index=index, **config)[1]
        # As a model would write it, so not the data set's own text; its length is known.
        assert answer_fault(name, entry["answer"] + " ", entry) is None


def matrix(answer):
    return [row.split() for row in answer.split("\n")]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("n_queens", lambda answer: repr(matrix(answer))),
        ("n_queens", lambda answer: json.dumps(matrix(answer), indent=1)),
        ("n_queens", lambda answer: repr(["".join(row) for row in matrix(answer)])),
        ("n_queens", lambda answer: repr(tuple(map(tuple, matrix(answer))))),
        ("binary_matrix", lambda answer: repr([list(map(int, row)) for row in matrix(answer)])),
        ("binary_matrix", lambda answer: json.dumps(matrix(answer))),
        ("spiral_matrix", lambda answer: ", ".join(answer.split())),
        ("spiral_matrix", lambda answer: repr(answer.split())),
        ("spiral_matrix", lambda answer: f"[{', '.join(answer.split())},]"),
        ("string_insertion", lambda answer: repr(list(answer))),
        ("string_insertion", repr),
        ("countdown", lambda answer: f"({answer}) * 1.0"),
        ("countdown", lambda answer: f"+({answer})\t"),
        ("puzzle24", lambda answer: f"(({answer}))"),
        ("puzzle24", lambda answer: answer.replace(" ", "")),
        ("simple_integration", lambda answer: answer.replace("+ C", "+ K")),
        ("simple_integration", lambda answer: answer.replace("+ C", "+ C_1")),
        ("simple_integration", lambda answer: answer.replace("+ C", "+ constant")),
        ("simple_integration", lambda answer: answer.replace(" + C", "")),
        ("simple_integration", lambda answer: f"1.0*({answer})"),
        ("intermediate_integration", lambda answer: f"{answer} + sin(pi) + log(E) + sqrt(4)"),
        ("intermediate_integration", lambda answer: f"{answer} + Abs(C)**(1/2) - ln(2)"),
        ("intermediate_integration", lambda answer: f"{answer} + C**12.75 / 2**-0.5"),
        ("simple_integration", lambda answer: re.sub(r"(\d+)\*([A-Za-z])", r"Integer(\1)*\2", answer)),
        ("simple_integration", lambda answer: re.sub(r"/(\d+)", r"*Rational(1, \1)", answer)),
        ("simple_integration", lambda answer: re.sub(r"([a-zA-Z])\*\*(\d+)", r"Pow(\1, \2)", answer)),
        ("simple_integration", lambda answer: re.sub(r"([a-zA-Z])\*\*(\d+)", r"pow(\1, \2)", answer)),
        ("simple_integration", lambda answer: re.sub(r"(\d+)/(\d+)", r"S(\1)/\2", answer)),
        ("intermediate_integration", lambda answer: f"{answer} + root(C, 2) + log(C, E) - Rational(-3, 2)"),
        ("intermediate_integration", lambda answer: f"{answer} + C**Rational(3, 2) + ln(C, 10) + cbrt(S(-8))"),
        ("countdown", lambda answer: f"({answer}) * Pow(1.0, 1.0)"),
        ("polynomial_multiplication", lambda answer: answer.replace(" ", "")),
        ("polynomial_multiplication", lambda answer: f"{answer} + 1_000 - 1_000"),
    ],
)
def test_other_notations_are_scored_as_by_the_scorer_alone(name, written):
    entry = make_gym_entry(name)[1]
    answer = written(entry["answer"])
    assert fault(name, answer) is None
    assert score(name, answer) >= 0.1 or "1.0" in answer


@pytest.mark.parametrize(
    "answer",
    [
        "2**3*3",
        "4! + 0",
        "3!!*8",
        "sqrt(16)*6",
        "49//2",
        "24%100",
        "8^16",
        "-(-24)",
        "2.4e1",
        "24.",
        "96/2**2",
        "pow(2, 3)*3",
        "S(24)/1",
        "Rational(48, 2)",
    ],
)
def test_arithmetic_with_powers_and_functions_is_accepted(answer):
    assert fault("puzzle24", answer) is None


@pytest.mark.parametrize("name", EVALUATING)
def test_wrong_answer_is_not_unparseable(name):
    wrong = {"n_queens": "Q _\n_ Q", "string_insertion": "AB"}.get(name, "1")
    verdict = ReasoningGymVerifier().verify(make_gym_entry(name)[2], wrong)
    assert (verdict.status, verdict.success) == ("ok", False)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("leg_counting", "1" * (LONGEST_ANSWER + 1)),
        ("n_queens", "Q " * 6000),
        ("rubiks_cube", "F999999999"),
        ("rubiks_cube", "F9999 " * 3),
        ("rubiks_cube", "F٩٩٩٩٩٩٩٩٩"),
        ("rubiks_cube", "F" * 9000 + "9000"),
        ("rubiks_cube", "9" * 6),
        ("rush_hour", "F+999999999"),
        ("rush_hour", "go F-٩٩٩٩٩٩٩٩٩!"),
        ("rush_hour", "A+4000 B-4000 C+4000"),
        ("coin_flip", "1e999999999"),
        ("coin_flip", "1E-9,9,9,9,9"),
        ("coin_flip", "1e9_9_9_9"),
        ("complex_arithmetic", "(" * 20_000 + ")" * 20_000),
        ("prime_factorization", "9×" * 20_000),
        ("quantum_lock", "C" * 40_000),
        ("codeio", '{"a":[' + "1," * 3000 + "1]}"),
        ("propositional_logic", "P∧" * 2000 + "P"),
        *[(name, "[" * 100_000) for name in ("codeio", "group_anagrams", "number_sorting", "graph_color")],
        *[(name, '{"a":' * 200) for name in ("boxnet", "codeio", "jugs", "knight_swap", "game_of_life")],
    ],
)
def test_answers_that_cost_too_much_are_refused(name, answer):
    assert name in fault(name, answer)


def test_length_limit_is_above_that_of_completions():
    assert fault("leg_counting", "so it is 4. " * 50_000) is None


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("rubiks_cube", "F2 U' R2 B"),
        ("rubiks_cube", "F " * 9000),
        ("rush_hour", "F+1 K+12 " * 500),
        ("coin_flip", "1,234/5e10"),
    ],
)
def test_ordinary_counts_pass(name, answer):
    assert fault(name, answer) is None


INTERPRETERS = {"eval", "exec", "compile", "__import__", "parse_expr", "sympify", "S", "lambdify", "parse_latex"}
INTERPRETERS |= {"literal_eval", "import_module", "system", "popen", "run", "getoutput", "Template", "unsafe_load"}
# Named like one, or evaluating what the data set itself has made: read, and no answer gets there.
NOT_THE_ANSWER = {
    "bitwise_arithmetic": "evaluates the problem",
    "number_sorting": "evaluates its own answer",
    "propositional_logic": "its parse_expr is a reader of its own",
}


def reached(function, cls, seen):
    """Return the names that a scorer calls, directly or through functions of its class and module."""
    if function in seen:
        return set()
    seen.add(function)
    names = set()
    try:
        source = inspect.getsource(function)
    except OSError:  # a dataclass has written it
        return set()
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Name):
            called, callee = node.id, function.__globals__.get(node.id)
        elif isinstance(node, ast.Attribute):
            called = node.attr
            callee = getattr(cls, called, None) or getattr(
                function.__globals__.get(getattr(node.value, "id", "")), called, None
            )
        else:
            continue
        names.add(called)
        for method in vars(callee).values() if inspect.isclass(callee) else [callee]:
            method = getattr(method, "__func__", method)
            if inspect.isfunction(method) and method.__module__.startswith("reasoning_gym"):
                names |= reached(method, cls, seen)
    return names


def test_every_registered_data_set_is_reviewed():
    assert {*gym.known_names()} == REVIEWED | {"composite"}


def test_no_other_scorer_calls_an_interpreter():
    gym.known_names()
    from reasoning_gym.factory import DATASETS

    calling = {
        name: sorted(INTERPRETERS & reached(cls.score_answer, cls, set()))
        for name, (cls, _) in DATASETS.items()
        if name != "composite"
    }
    assert sorted(name for name, calls in calling.items() if calls) == sorted([*EVALUATING, *NOT_THE_ANSWER])
