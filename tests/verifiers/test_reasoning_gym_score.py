import importlib.metadata
from decimal import Decimal

import pytest

from rollmill.problems import gym
from rollmill.records import Problem
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier


def entry_of(name, index=1, **config):
    origin = {"name": name, "config": {"seed": 7, "size": 20, **config}, "index": index}
    entry = gym.make_entry(gym.create_dataset(name, origin["config"]), index)
    return entry, Problem(instance_id="p-1", prompt=entry["question"], fields={"reasoning_gym": origin})


def test_version_contains_the_installed_release():
    assert ReasoningGymVerifier().version == "3+" + importlib.metadata.version("reasoning-gym")


def test_first_reading_is_version_2():
    entry, problem = entry_of("leg_counting")
    verifier = ReasoningGymVerifier(answer="first")
    verdict = verifier.verify(problem, f"<think><answer>{entry['answer']}</answer></think><answer>x</answer>")
    assert (verifier.version[:2], verdict.success) == ("2+", True)


@pytest.mark.parametrize("completion", ["{}", " {}\n", "so <answer> {} </answer> it is"])
def test_the_right_answer_scores_fully(completion):
    entry, problem = entry_of("leg_counting")
    verdict = ReasoningGymVerifier().verify(problem, completion.format(entry["answer"]))
    assert (verdict.status, verdict.reward, verdict.distance, verdict.success) == ("ok", 1.0, 0.0, True)
    assert verdict.verifier.startswith("reasoning_gym@3+")


def test_partial_score_is_the_reward():
    entry, problem = entry_of("leg_counting")
    completion = f"<answer>{entry['answer'].ljust(5, '.')}</answer>"
    score = len(entry["answer"]) / 5
    strict = ReasoningGymVerifier().verify(problem, completion)
    assert (strict.reward, strict.distance, strict.success) == (score, 1 - score, False)
    assert ReasoningGymVerifier(accept_error=1 - score).verify(problem, completion).success


def test_entry_without_an_answer_is_scored():
    _, problem = entry_of("graph_color")
    assert ReasoningGymVerifier().verify(problem, "<answer>{}</answer>").reward < 1


@pytest.mark.parametrize(
    ("name", "completion"), [("prime_factorization", "zzz 5"), ("leg_counting", "<answer></answer>")]
)
def test_answer_that_the_scorer_cannot_read_is_unparseable(name, completion):
    _, problem = entry_of(name)
    verdict = ReasoningGymVerifier().verify(problem, completion)
    assert (verdict.status, verdict.reward, verdict.distance) == ("unparseable", 0, None)
    assert verdict.reason


def test_verdicts_do_not_depend_on_other_rows():
    entry, problem = entry_of("power_function")
    _, other = entry_of("decimal_arithmetic", precision=2, min_num_decimal_places=0, max_num_decimal_places=0)
    verifier = ReasoningGymVerifier()
    verifier.verify(other, "1")
    assert verifier.verify(problem, entry["answer"]).success


def test_decimal_arithmetic_is_scored_in_the_precision_of_its_configuration():
    config = {"precision": 4, "min_num_decimal_places": 2, "max_num_decimal_places": 2}
    entry, problem = entry_of("decimal_arithmetic", **config)
    nearly = Decimal(entry["answer"]) + Decimal("0.010004")  # a hundredth off in four digits
    for precision in (12, 4):
        assert ReasoningGymVerifier().verify(problem, f"{nearly}").success
        entry_of("decimal_arithmetic", precision=precision, min_num_decimal_places=1, max_num_decimal_places=1)
    assert not ReasoningGymVerifier().verify(problem, f"{nearly + Decimal('0.0001')}").success


def test_the_prompt_may_surround_the_question():
    entry, problem = entry_of("leg_counting")
    framed = problem.model_copy(update={"prompt": f"Think.\n{problem.prompt}\nUse <answer>."})
    assert ReasoningGymVerifier().verify(framed, entry["answer"]).success
    as_chat = problem.model_copy(update={"prompt": [{"role": "user", "content": problem.prompt}]})
    assert ReasoningGymVerifier().verify(as_chat, entry["answer"]).success


def test_entry_that_differs_from_the_prompt_is_an_error():
    _, problem = entry_of("leg_counting")
    other = problem.model_copy(update={"prompt": "How many legs has a cat?"})
    with pytest.raises(ValueError, match="p-1: entry 1 of leg_counting, regenerated, asks something else"):
        ReasoningGymVerifier().verify(other, "4")


@pytest.mark.parametrize(
    ("origin", "fault"),
    [
        (None, "there is no"),
        ({"name": 3}, "name is not a text"),
        ({"name": "leg_counting", "config": []}, "config is not an object"),
        ({"name": "leg_counting", "config": {}, "index": 0}, "no integer seed"),
        ({"name": "leg_counting", "config": {"seed": 1}, "index": -1}, "index is not a number from 0"),
        ({"name": "leg_counting", "config": {"seed": 1}}, "index is not a number from 0"),
    ],
)
def test_a_faulty_origin_is_named(origin, fault):
    problem = Problem(instance_id="p-1", prompt="?", fields={"reasoning_gym": origin} if origin else {})
    verifier = ReasoningGymVerifier()
    assert fault in verifier.problem_fault(problem)
    with pytest.raises(ValueError, match="p-1: .*" + fault):
        verifier.verify(problem, "4")


@pytest.mark.parametrize("name", ["no_such_set", "leg_counting"])
def test_a_data_set_that_cannot_be_made_is_named(name):
    origin = {"name": name, "config": {"seed": 1, "no_such_option": 1}, "index": 0}
    problem = Problem(instance_id="p-1", prompt="?", fields={"reasoning_gym": origin})
    with pytest.raises(ValueError, match=f"p-1: entry 0 of {name} cannot be made"):
        ReasoningGymVerifier().verify(problem, "4")
