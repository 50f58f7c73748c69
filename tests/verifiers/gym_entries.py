"""Entries of reasoning-gym's data sets, generated once for all tests."""

import functools

from rollmill.problems import gym
from rollmill.records import Problem
from rollmill.verifiers.gym_answers import answer_fault

ARITHMETIC = ["countdown", "puzzle24"]
IN_VARIABLES = ["intermediate_integration", "polynomial_multiplication", "simple_integration"]
LITERAL = ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion"]
EVALUATING = sorted([*ARITHMETIC, *IN_VARIABLES, *LITERAL])


@functools.cache
def _dataset(name, **config):
    return gym.create_dataset(name, config)


@functools.cache
def make_gym_entry(name, seed=7, index=0, **config):
    """Return a data set, one of its entries, and the problem made of it."""
    config = {"seed": seed, "size": 500, **config}
    dataset = _dataset(name, **config)
    entry = gym.make_entry(dataset, index)
    origin = {"name": name, "config": config, "index": index}
    return dataset, entry, Problem(instance_id="p-1", prompt=entry["question"], fields={"reasoning_gym": origin})


def fault(name, answer):
    """Return the fault of an answer."""
    return answer_fault(name, answer, {**make_gym_entry(name)[1], "answer": "another"})


def score(name, answer):
    dataset, entry, _ = make_gym_entry(name)
    return dataset.score_answer(answer, entry)
