"""Episodes of thinking models, from their requests to the journal's rows and the training rows."""

import asyncio

from rollmill.generation.sampling import Sampling
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from rollmill.jobs.episodes.episode import EpisodePolicies, run_episode
from rollmill.jobs.episodes.generator import EpisodeGenerator, EpisodeSetup, EpisodeWork
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import ModelPolicy
from rollmill.jobs.episodes.record import EpisodeRollout
from rollmill.jobs.episodes.selection import Episode, Row
from tests.chat_template import render, rendered_by_a_server
from tests.jobs.episodes.toy import Player, Settings, ToyEnvironment, problem, threads

PLAIN = Sampling()
WITHOUT = Sampling(chat_template_kwargs={"enable_thinking": False})


class Remembering(Player):
    """Shows its own earlier answers again."""

    def __init__(self, world, name):
        super().__init__(world, name)
        self._before = []

    def prompt(self):
        self._shown = [*self._before, {"role": "user", "content": f"{self._world.sum} of {self._world.goal}"}]
        return self._shown

    def act(self, completion):
        self._before = [*self._shown, {"role": "assistant", "content": completion}]
        return super().act(completion)


class RememberingEnvironment(ToyEnvironment):
    """The toy, with agents who remember."""

    def __init__(self, problem, settings):
        super().__init__(problem, settings)
        self._agents = {name: Remembering(self, name) for name in ("first", "second")}


def episode(folder, *, first=PLAIN, second=PLAIN, drop_reasoning=False, keys=("reasoning",)):
    """The journal's row of an episode of four turns, and its requests."""
    turns = [
        ScriptedAnswer(content="1", reasoning="first thoughts", reasoning_keys=keys),
        ScriptedAnswer(content="2", reasoning="second thoughts", reasoning_keys=keys, finish_reason="length"),
    ]
    script = Script(conversations=[Conversation(answers=turns)])

    async def main(url):
        async with ChatClient(EndpointPool([Endpoint(url)]), ClientConfig(max_retries=0)) as client:
            policies = {
                name: ModelPolicy(name, client, model="scripted", sampling=sampling)
                for name, sampling in (("first", first), ("second", second))
            }
            cast = EpisodePolicies(policies, 2, ImageFolder(folder), drop_reasoning)
            async with threads() as in_thread:
                played = await run_episode(
                    lambda: RememberingEnvironment(problem("6"), Settings()), cast, seed=1, in_thread=in_thread
                )
            maker = EpisodeGenerator(
                EpisodeSetup(RememberingEnvironment, Settings(), 0, {}), cast, clients=[], open_tools=None, threads=1
            )
            return maker._record(EpisodeWork(problem("6"), 0, 0), 1, played)

    with ScriptedServer(script) as server:
        record = asyncio.run(main(server.base_url))
        bodies = server.bodies
    assert record.error is None
    return EpisodeRollout.model_validate_json(record.model_dump_json()), bodies


def rows(rollout):
    return [Row(Episode(0, rollout), turn, None).to_json() for turn in rollout.turns]


def test_every_turn_is_trained_on_behind_its_own_prompt(tmp_path):
    for options in ({}, {"drop_reasoning": True}, {"first": WITHOUT}, {"first": WITHOUT, "second": WITHOUT}):
        rollout, bodies = episode(tmp_path, **options)
        assert len(bodies) == len(rollout.turns) == 4
        for body, row in zip(bodies, rows(rollout), strict=True):
            assert rendered_by_a_server(body) == render(row["messages"][:-1], row)


def test_thoughts_and_ends_are_on_the_messages(tmp_path):
    rollout, bodies = episode(tmp_path)
    last = rollout.turn_messages(rollout.turns[-1])
    assert last[-1] == {
        "role": "assistant", "content": "2", "reasoning_content": "second thoughts", "finish_reason": "length",
    }  # fmt: skip
    assert last[1] == {"role": "assistant", "content": "1", "reasoning_content": "first thoughts"}
    assert bodies[-1]["messages"][1] == {"role": "assistant", "content": "1", "reasoning": "first thoughts"}
    assert rows(rollout)[-1]["messages"][-1].keys() == {"role", "content", "reasoning_content"}


def test_dropped_thoughts_are_not_sent_again(tmp_path):
    rollout, bodies = episode(tmp_path, drop_reasoning=True)
    assert bodies[-1]["messages"][1] == {"role": "assistant", "content": "1"}
    assert rollout.metadata["reasoning_dropped"] is True


def test_shared_template_kwargs_are_on_the_row_and_others_on_the_turns(tmp_path):
    both, _ = episode(tmp_path, first=WITHOUT, second=WITHOUT)
    assert both.chat_template_kwargs == {"enable_thinking": False}
    assert [turn.chat_template_kwargs for turn in both.turns] == [None] * 4
    item, _ = episode(tmp_path, first=WITHOUT)
    assert item.chat_template_kwargs is None
    assert [turn.chat_template_kwargs for turn in item.turns] == [{"enable_thinking": False}, None] * 2
