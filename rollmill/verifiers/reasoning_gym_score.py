"""Verify by the score of a reasoning-gym data set."""

from __future__ import annotations

import functools
import importlib.metadata
from contextlib import suppress
from types import ModuleType
from typing import Any

import orjson

from rollmill.errors import InputError, describe
from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import AnswerReading, answer_or_all
from rollmill.verifiers.gym_answers import answer_fault
from rollmill.verifiers.gym_answers import executes_answers as scorer_executes_answers
from rollmill.verifiers.process_sandbox import require_sandbox
from rollmill.verifiers.registry import VerifierEntry
from rollmill.verifiers.tolerance import is_accepted

ENTRY = VerifierEntry("reasoning_gym", "ReasoningGymVerifier", "the score of its reasoning-gym data set")


class ReasoningGymVerifier:
    """Verifies by the data set's own score, from 0 to 1, which is the reward; the distance is 1 - score.

    Success is a distance of at most `accept_error`, by default the full score.

    `problem.fields["reasoning_gym"]` is `{"name": str, "config": dict, "index": int}`, from which the entry that the
    scorer needs is regenerated, since its metadata does not survive JSON. The answer is the content of the
    `<answer>` pair, or without one all text after the reasoning. An answer outside of the data set's grammar
    (`answer_fault`) is unparseable and is not passed to the scorer, which might evaluate it.

    Args:
        accept_error: Largest distance, from 0 to 1, that counts as success.
        answer: Which `<answer>` pair is judged: the first or the last.
    """

    name = "reasoning_gym"

    def __init__(self, *, accept_error: float = 0.0, answer: AnswerReading = "last") -> None:
        self.accept_error = accept_error
        self._reading: AnswerReading = answer
        # Version 2 judged the first pair, as answer="first" still does, with the same verdicts: it keeps that number.
        major = "2" if answer == "first" else "3"
        try:
            self.version = f"{major}+{importlib.metadata.version('reasoning-gym')}"
        except importlib.metadata.PackageNotFoundError:
            raise InputError("the verifier reasoning_gym needs the package reasoning-gym: install it") from None

    def prepare(self) -> None:
        """Import reasoning-gym, which takes three to four seconds."""
        _gym().known_names()  # imports the package

    def problem_fault(self, problem: Problem) -> str | None:
        """Return why the entry cannot be regenerated, or None; only the form of `reasoning_gym` is checked.

        Raises `InputError` if the scorer runs answers as programs, and no sandbox is available here.
        """
        fault = self._origin_fault(problem)
        if fault is None and self.executes_answers(problem):
            require_sandbox(problem.fields["reasoning_gym"]["name"])
        return fault

    def executes_answers(self, problem: Problem) -> bool:
        """Return whether the data set's scorer runs answers as programs."""
        return self._origin_fault(problem) is None and scorer_executes_answers(problem.fields["reasoning_gym"]["name"])

    def prepare_problem(self, problem: Problem) -> None:
        """Regenerate and cache the entry, and warm up its scorer. Raises `ValueError` as `verify` does."""
        self._dataset_and_entry(problem)
        _warm_up(problem.fields["reasoning_gym"]["name"])

    def _origin_fault(self, problem: Problem) -> str | None:
        origin = problem.fields.get("reasoning_gym")
        if not isinstance(origin, dict):
            return 'there is no "reasoning_gym" with name, config and index'
        if not isinstance(origin.get("name"), str):
            return "reasoning_gym.name is not a text"
        config, index = origin.get("config"), origin.get("index")
        if not isinstance(config, dict):
            return "reasoning_gym.config is not an object"
        if not isinstance(config.get("seed"), int):
            return "reasoning_gym.config has no integer seed, so that the entry cannot be regenerated"
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            return "reasoning_gym.index is not a number from 0"
        return None

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `ValueError`, naming the instance, where its entry cannot be regenerated."""
        dataset, entry = self._dataset_and_entry(problem)
        answer = answer_or_all(completion, self._reading)
        if not answer:
            return self._unparseable("the answer is empty")
        if fault := answer_fault(problem.fields["reasoning_gym"]["name"], answer, entry):
            return self._unparseable(fault)
        # The pool calls `verify` in a worker process; if the scorer runs answers as programs, in a fork in a sandbox.
        try:
            score = _gym().score_answer(dataset, answer, entry)
        except Exception as error:
            # Some scorers (prime_factorization) raise on an answer that they cannot parse. If scoring the correct
            # answer raises as well, the scorer is at fault, and that exception propagates.
            _gym().score_answer(dataset, entry["answer"], entry)
            return self._unparseable(f"the scorer cannot read the answer: {describe(error, limit=200)}")
        if not 0 <= score <= 1:
            raise ValueError(f"{problem.instance_id}: the scorer gave {score}, which is not between 0 and 1")
        return Verdict(
            verifier=f"{self.name}@{self.version}",
            status="ok",
            answer=answer,
            distance=1 - score,
            reward=score,
            success=is_accepted(1 - score, self.accept_error, magnitude=1.0),
        )

    def _dataset_and_entry(self, problem: Problem) -> tuple[Any, dict[str, Any]]:
        """Return the problem's data set and its regenerated entry. Raises `ValueError` if they cannot be made."""
        if fault := self._origin_fault(problem):
            raise ValueError(f"{problem.instance_id}: {fault}")
        origin = problem.fields["reasoning_gym"]
        name, index = origin["name"], origin["index"]
        config = orjson.dumps(origin["config"], option=orjson.OPT_SORT_KEYS)
        try:
            entry = _cached_entry(name, config, index)
        except Exception as error:
            raise ValueError(
                f"{problem.instance_id}: entry {index} of {name} cannot be made: {describe(error)}"
            ) from error
        # A prompt of messages may be templated, so that only a text must contain the question.
        if isinstance(problem.prompt, str) and entry["question"].strip() not in problem.prompt:
            raise ValueError(
                f"{problem.instance_id}: entry {index} of {name}, regenerated, asks something else than the prompt: "
                "another release of reasoning-gym, another config, or a data set that is not reproducible"
            )
        return _cached_dataset(name, config), entry

    def _unparseable(self, reason: str) -> Verdict:
        name = f"{self.name}@{self.version}"
        return Verdict(verifier=name, status="unparseable", reason=reason, reward=0.0, success=False)


def _gym() -> ModuleType:
    # Imported late, since it takes seconds. The loader makes its entries by the same functions, so that they are equal.
    from rollmill.problems import gym

    return gym


@functools.cache
def _warm_up(name: str) -> None:
    """Make a scorer import and cache what it needs; with sympy that takes a tenth of a second.

    Scores an entry of the default configuration, since the problem's own entry may contain code that the scorer runs.
    """
    with suppress(Exception):  # composite has no default configuration
        dataset = _gym().create_dataset(name, {"seed": 0, "size": 1})
        entry = _gym().make_entry(dataset, 0)
        _gym().score_answer(dataset, entry["answer"], entry)


@functools.lru_cache(maxsize=64)
def _cached_dataset(name: str, config: bytes) -> Any:
    return _gym().create_dataset(name, orjson.loads(config))


@functools.lru_cache(maxsize=1024)
def _cached_entry(name: str, config: bytes, index: int) -> dict[str, Any]:
    entry: dict[str, Any] = _gym().make_entry(_cached_dataset(name, config), index)
    return entry
