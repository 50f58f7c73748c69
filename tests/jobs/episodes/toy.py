"""A small environment of two agents who add up to a number, with failures on request."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import orjson
from pydantic import BaseModel, ConfigDict

from rollmill.environments.environment import Step
from rollmill.jobs.episodes.episode import EpisodePolicies, run_episode
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import DemonstrationPolicy
from rollmill.problems import ProblemSource
from rollmill.records import Problem
from rollmill.sandboxes.sandbox import SandboxError

PNG = b"\x89PNG\r\n\x1a\n and so on"


class Settings(BaseModel):
    """Of the toy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raises_in: str = ""
    """The call that raises: make, turn_order, agents, prompt, act, done, success."""
    raises: str = "ZeroDivisionError"
    """Or `SandboxError`."""
    gives: str = ""
    """What comes from `raises_in` instead: `nan`, `none`."""
    picture: bool = False


class Player:
    """FixedAnswers a number that is added."""

    def __init__(self, world, name):
        self._world = world
        self._name = name

    def prompt(self):
        self._world.may_raise("prompt")
        text = f"{self._name}: {self._world.sum} of {self._world.goal}"
        if self._world.settings.picture:
            return [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "image", "image": PNG}]}]
        return [{"role": "system", "content": "Say a number."}, {"role": "user", "content": text}]

    def act(self, completion):
        self._world.may_raise("act")
        if self._world.settings.gives == "nan":
            return Step(float("nan"))
        try:
            self._world.sum += int(completion)
        except ValueError:
            return Step(-1.0, {"malformed": completion})
        return Step(float(self._world.sum == self._world.goal), {"sum": self._world.sum})

    def oracle(self):
        left = self._world.goal - self._world.sum
        return str(left - 1 if self._name == "first" and left > 1 and self._world.sum == 0 else left)

    def random(self, rng: random.Random):
        return str(-rng.randrange(1, 9))


class ToyEnvironment:
    """Two agents add until the sum is the problem's answer."""

    name = "toy_env"
    version = "1"
    Settings = Settings
    needs = frozenset()

    @classmethod
    def agent_names(cls, settings):
        return ("first", "second")

    @classmethod
    def source(cls, settings, folder):
        rows = [{"id": f"toy-{index}", "prompt": "Add up.", "answer": str(index + 2)} for index in range(5)]
        path = folder / "toy.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return ProblemSource(dataset=str(path), prompt_field="prompt", answer_field="answer", id_field="id")

    @classmethod
    def problem_fault(cls, settings, problem):
        return None if (problem.answer or "").isdecimal() else "answer is no number"

    @classmethod
    def make(cls, problem, seed, settings, tools):
        return cls(problem, settings)

    def __init__(self, problem, settings):
        self.settings = settings
        self.goal = int(problem.answer)
        self.sum = 0
        self.may_raise("make")
        self._agents = {name: Player(self, name) for name in self.agent_names(settings)}

    def may_raise(self, where):
        if self.settings.raises_in == where and not self.settings.gives:
            raise (
                SandboxError("it is gone", type_="transport")
                if self.settings.raises == "SandboxError"
                else (ZeroDivisionError("by nothing"))
            )

    @property
    def agents(self):
        self.may_raise("agents")
        return self._agents

    @property
    def turn_order(self):
        self.may_raise("turn_order")
        return tuple(self._agents)

    @property
    def done(self):
        self.may_raise("done")
        return None if (self.settings.raises_in, self.settings.gives) == ("done", "none") else self.sum == self.goal

    @property
    def success(self):
        self.may_raise("success")
        return None if (self.settings.raises_in, self.settings.gives) == ("success", "none") else self.sum == self.goal


def problem(answer="5", name="p"):
    return Problem(instance_id=name, prompt="Add up.", answer=answer)


@asynccontextmanager
async def threads():
    with ThreadPoolExecutor(2) as pool:

        async def in_thread(call):
            return await asyncio.get_running_loop().run_in_executor(pool, call)

        yield in_thread


def played(tmp_path, policies=None, *, answer="5", max_turns=3, seed=7, environment=ToyEnvironment, **settings):
    """One episode of the toy; policies by agent, the oracle where none is given."""
    oracle = DemonstrationPolicy("knows", "oracle")
    cast = EpisodePolicies({"first": oracle, "second": oracle} | (policies or {}), max_turns, ImageFolder(tmp_path))

    async def run():
        async with threads() as in_thread:
            options = environment.Settings(**settings)
            return await run_episode(
                lambda: environment.make(problem(answer), seed, options, None), cast, seed=seed, in_thread=in_thread
            )

    return asyncio.run(run())
