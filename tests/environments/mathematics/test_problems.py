"""Built-in problems of mathematics, played by the policies `oracle` and `random`."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollmill.environments.mathematics.environment import MathEnvironment, MathSettings
from rollmill.environments.tools import Tools
from rollmill.jobs.episodes.episode import EpisodePolicies, run_episode
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import DemonstrationPolicy
from rollmill.jobs.episodes.tools import VerifierPools
from rollmill.problems import load_problems, read_problems
from tests.environments.mathematics.playing import box, new, say

pytestmark = pytest.mark.slow  # reasoning-gym takes seconds to import

SINGLE = MathSettings(single_agent=True)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    settings = MathSettings()
    loaded = load_problems(
        MathEnvironment.source(settings, folder),
        folder,
        problem_fault=lambda problem: MathEnvironment.problem_fault(settings, problem),
    )
    assert (loaded.count, loaded.quarantined) == (500, 0)
    return list(read_problems(loaded.path))


def test_oracle_solves_all_problems_and_random_none(problems):
    for number, problem in enumerate(problems):
        knows = new(problem, single_agent=True)
        (agent,) = knows.agents.values()
        assert say(knows, agent.oracle())[0].reward == 1.0, problem
        assert knows.success is True
        guesses = new(problem, single_agent=True)
        (agent,) = guesses.agents.values()
        say(guesses, agent.random(random.Random(number)))
        assert guesses.success is False


def test_lone_sign_or_list_of_guesses_is_wrong(problems):
    for problem in problems[:20]:
        for message in (f"-{problem.answer}", f"{problem.answer} or 1234567", f"{problem.answer}, 1234567"):
            environment = new(problem, single_agent=True)
            assert say(environment, box(message))[0].reward == 0.0, message


def test_other_data_sets_of_reasoning_gym_can_be_named(tmp_path):
    for name in ("chain_sum?size=5&min_terms=3", "reasoning_gym:fraction_simplification?size=5"):
        settings = MathSettings(dataset=name, single_agent=True)
        loaded = load_problems(MathEnvironment.source(settings, tmp_path), tmp_path)
        for problem in read_problems(loaded.path):
            environment = new(problem, single_agent=True)
            (agent,) = environment.agents.values()
            assert say(environment, agent.oracle())[0].reward == 1.0


def test_whole_episodes_with_the_real_verifiers_and_sandboxes(problems, python, tmp_path):
    async def episodes(kind):
        policy = DemonstrationPolicy(kind, kind)
        cast = EpisodePolicies({"reasoner": policy, "tool_user": policy}, 3, ImageFolder(tmp_path))
        async with VerifierPools() as pools:
            tools = Tools(python=python, verification=pools)
            with ThreadPoolExecutor(4) as threads:

                async def in_thread(call):
                    return await asyncio.get_running_loop().run_in_executor(threads, call)

                def make(problem):
                    return lambda: MathEnvironment.make(problem, 0, MathSettings(), tools)

                return await asyncio.gather(
                    *(
                        run_episode(make(problem), cast, seed=seed, in_thread=in_thread)
                        for seed, problem in enumerate(problems[:6])
                    )
                )

    knowing = asyncio.run(episodes("oracle"))
    assert [(episode.success, episode.error, len(episode.turns)) for episode in knowing] == [(True, None, 2)] * 6
    guessing = asyncio.run(episodes("random"))
    assert [(episode.success, episode.error, len(episode.turns)) for episode in guessing] == [(False, None, 6)] * 6
