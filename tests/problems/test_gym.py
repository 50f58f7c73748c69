import decimal
import os
import random
import subprocess
import sys

import numpy
import pytest

from rollmill.errors import InputError
from rollmill.problems import gym


def questions(load, dataset, **settings):
    return [problem.prompt for problem in load(dataset, **settings).problems]


def test_problems_record_how_to_regenerate_them(load):
    loaded = load("reasoning_gym:chain_sum?size=5&seed=7&min_digits=2")
    assert loaded.report.count == 5
    problem = loaded.problems[3]
    source = problem.fields["reasoning_gym"]
    assert problem.instance_id == "chain_sum-3"
    assert source == {"name": "chain_sum", "config": {"min_digits": 2, "seed": 7, "size": 500}, "index": 3}
    dataset = gym.create_dataset(source["name"], source["config"])
    entry = gym.make_entry(dataset, source["index"])
    assert (entry["question"], entry["answer"]) == (problem.prompt, problem.answer)
    assert dataset.score_answer(problem.answer, entry) == 1.0


def test_bare_name_has_500_problems_of_seed_42(load):
    assert load("leg_counting").report.count == 500
    assert questions(load, "leg_counting", max_problems=4) == questions(
        load, "reasoning_gym:leg_counting?size=4&seed=42"
    )


@pytest.mark.parametrize("name", ["chain_sum", "acre"])
def test_problem_does_not_depend_on_the_size(load, name):
    few = questions(load, f"{name}?size=3")
    assert few == questions(load, f"{name}?size=200")[:3] == questions(load, name, max_problems=3)


def test_same_command_same_sha256(load):
    first, second = load("ab?size=9", into="a"), load("reasoning_gym:ab?seed=42&size=9", into="b")
    assert first.report.sha256 == second.report.sha256
    assert load("ab?size=9&seed=43", into="c").report.sha256 != first.report.sha256


def test_entries_without_an_answer(load):
    assert load("graph_color?size=2").problems[0].answer is None


def test_generator_with_global_random_state_is_deterministic_and_restores_it():
    dataset = gym.create_dataset("list_functions", {"seed": 7, "size": 500})
    random.seed(1)
    before = random.getstate()
    first = gym.make_entry(dataset, 13)
    assert random.getstate() == before
    random.seed(2)
    assert gym.make_entry(dataset, 13) == first


def process_state():
    numbers = numpy.random.get_state()
    return random.getstate(), numbers[1].tolist(), numbers[2:], decimal.getcontext().prec, sys.getrecursionlimit()


@pytest.mark.parametrize("name", ["decimal_arithmetic", "pool_matrix", "list_functions"])
def test_entries_and_scores_leave_the_process_state_unchanged(name):
    dataset = gym.create_dataset(name, {"seed": 7, "size": 500})
    before = process_state()
    entry = gym.make_entry(dataset, 13)
    assert gym.score_answer(dataset, entry["answer"], entry) == 1.0
    assert process_state() == before


def test_scorer_does_not_change_the_entry():
    dataset = gym.create_dataset("knight_swap", {"seed": 7, "size": 500, "impossible_ratio": 0.0})
    entry = gym.make_entry(dataset, 0)
    before = sorted(entry["metadata"])
    assert gym.score_answer(dataset, entry["answer"], entry) == 1.0
    assert sorted(entry["metadata"]) == before


def test_entry_that_cannot_be_made_is_quarantined(load, monkeypatch):
    make_entry = gym.make_entry

    def fail_once(dataset, index):
        if index == 1:
            raise RuntimeError("gave up")
        return make_entry(dataset, index)

    monkeypatch.setattr(gym, "make_entry", fail_once)
    loaded = load("ab?size=3")
    assert [problem.instance_id for problem in loaded.problems] == ["ab-0", "ab-2"]
    assert loaded.report.reasons == {"reasoning_gym raised RuntimeError": 1}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("reasoning_gym:chain_smu", "did you mean chain_sum"),
        ("reasoning_gym:zzzzzz", "known: ab, acre"),
        ("chain_smu", "chain_sum.* come close"),
        ("reasoning_gym:chain_sum?nonsense=1", "refuses its configuration.*nonsense"),
        ("reasoning_gym:chain_sum?min_digits=9&max_digits=2", "max_digits must be >= min_digits"),
        ("reasoning_gym:chain_sum?min_digits=x", "refuses its configuration"),
        ("reasoning_gym:composite", "refuses its configuration"),
        ("reasoning_gym:chain_sum?size=0", "size must be at least 1"),
        ("reasoning_gym:chain_sum?size=many", "size must be an integer"),
        ("reasoning_gym:chain_sum?seed=1.5", "seed must be an integer"),
        ("reasoning_gym:chain_sum?size", "expected key=value pairs"),
        ("reasoning_gym:chain_sum?size=1&size=2", "each once"),
    ],
)
def test_bad_specification_is_reported_in_one_line(load, dataset, message):
    with pytest.raises(InputError, match=message) as caught:
        load(dataset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("true", True),
        ("True", True),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("('+', '-')", ("+", "-")),
        ("+", "+"),
    ],
)
def test_values_of_a_query(text, value):
    assert gym._parse_value(text) == value


def test_data_set_depending_on_the_hash_seed_needs_it_fixed(load, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(InputError, match="set PYTHONHASHSEED=0"):
        load("word_ladder?size=1")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert load("word_ladder?size=1").report.count == 1


@pytest.mark.slow
def test_problems_are_the_same_in_every_process():
    code = """
from rollmill.problems.gym import read_problems
for name in ("chain_sum", "list_functions"):
    for _, problem in read_problems(f"{name}?size=30", None):
        print(problem.model_dump_json())
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


CODE = "__import__('os').system('id')"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("simple_integration", "symbols", ["x", CODE]),
        ("simple_integration", "symbols", CODE),
        ("simple_integration", "symbols", {"x": CODE}),
        ("intermediate_integration", "symbols", [CODE]),
        ("polynomial_multiplication", "variables", ["x", "y.real"]),
        ("polynomial_multiplication", "variables", ["x:1000000000"]),
        ("polynomial_multiplication", "variables", ["x__class__"]),
        ("polynomial_multiplication", "variables", ["ｘ"]),
        ("spell_backward", "data_file", "/etc/passwd"),
        ("spell_backward", "data_file", "../factory.py"),
        ("spell_backward", "data_file", ".."),
        ("bitwise_arithmetic", "difficulty", CODE),
        ("number_sorting", "min_value", [[[CODE]]]),
    ],
)
def test_configuration_that_would_be_evaluated_or_opened_is_refused(name, key, value):
    with pytest.raises(
        InputError, match=f"reasoning_gym {name} refuses its configuration: {key} must be .*, found"
    ) as refused:
        gym.create_dataset(name, {"seed": 1, "size": 5, key: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("simple_integration", {"symbols": ["t", "x1"]}),
        ("intermediate_integration", {"symbols": "X"}),
        ("polynomial_multiplication", {"variables": ["x", "y_0"]}),
        ("spell_backward", {"data_file": "holdout_words.txt"}),
        ("calendar_arithmetic", {"tasks": None}),
        ("chain_sum", {"allow_negation": True, "min_terms": 3}),
    ],
)
def test_plain_names_and_numbers_are_accepted(name, config):
    dataset = gym.create_dataset(name, {"seed": 1, "size": 5, **config})
    entry = gym.make_entry(dataset, 0)
    assert dataset.score_answer(entry["answer"], entry) == 1


def test_composite_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"composite is made of other data sets.*name one of those"):
        gym.create_dataset("composite", {"seed": 1, "size": 5, "datasets": [{"name": "ab"}]})
