import asyncio

import pytest

from rollmill.errors import InputError
from rollmill.generation.identity import rollout_seed
from rollmill.generation.sampling import Sampling
from rollmill.inference.client import ChatClient, ClientConfig, RequestFailedError
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.script import Script
from rollmill.inference.scripted import ScriptedServer
from rollmill.jobs.episodes.policies import DemonstrationPolicy, ModelPolicy, PolicyAnswer
from rollmill.records import Usage
from tests.jobs.episodes.toy import PNG, played


class FixedAnswers:
    """A policy with fixed answers."""

    def __init__(self, *answers, name="says", context=None):
        self.name = name
        self.context = context or {}
        self.answers = list(answers)
        self.requests = []

    async def answer(self, agent, messages, seed, in_thread):
        self.requests.append((messages, seed))
        message = self.answers.pop(0)
        if isinstance(message, Exception):
            raise message
        return (
            message
            if isinstance(message, PolicyAnswer)
            else PolicyAnswer(message, Usage(prompt_tokens=10, completion_tokens=1), "stop", 1)
        )


def test_agents_act_in_turn_until_it_is_done(tmp_path):
    first, second = FixedAnswers("1", "1"), FixedAnswers("1", "2")
    episode = played(tmp_path, {"first": first, "second": second})
    assert (episode.success, episode.error) == (True, None)
    assert [(turn.agent_name, turn.turn_idx, turn.reward) for turn in episode.turns] == [
        ("first", 0, 0.0), ("second", 0, 0.0), ("first", 1, 0.0), ("second", 1, 1.0),
    ]  # fmt: skip
    assert [turn.info["sum"] for turn in episode.turns] == [1, 2, 3, 5]
    assert second.requests[0][0][-1]["content"] == "second: 1 of 5"
    assert (episode.usage, episode.calls) == (Usage(prompt_tokens=40, completion_tokens=4), 4)
    turn = episode.turns[2]
    assert episode.messages[turn.first : turn.end] == [
        {"role": "system", "content": "Say a number."},
        {"role": "user", "content": "first: 2 of 5"},
        {"role": "assistant", "content": "1", "finish_reason": "stop"},
    ]
    assert [turn.first for turn in episode.turns] == [0, 3, 6, 9]
    assert episode.turns[-1].end == len(episode.messages)


def test_episode_ends_mid_turn_when_done(tmp_path):
    episode = played(tmp_path, {"first": FixedAnswers("5"), "second": FixedAnswers()})
    assert [turn.agent_name for turn in episode.turns] == ["first"]
    assert episode.success is True


def test_the_episode_ends_after_max_turns(tmp_path):
    episode = played(tmp_path, {"first": FixedAnswers("1", "x"), "second": FixedAnswers("1", "1")}, max_turns=2)
    assert len(episode.turns) == 4
    assert episode.success is False
    assert (episode.turns[2].reward, episode.turns[2].info) == (-1.0, {"malformed": "x"})


def test_each_turn_has_its_own_reproducible_seed(tmp_path):
    item, two = FixedAnswers("0", "0", "0"), FixedAnswers("0", "0", "0")
    played(tmp_path, {"first": item, "second": two}, seed=11)
    seeds = [seed for _, seed in item.requests + two.requests]
    assert seeds == [rollout_seed(11, name, turn) for name in ("first", "second") for turn in range(3)]
    assert len(set(seeds)) == 6


def test_demonstrations_of_oracle_and_random(tmp_path):
    assert played(tmp_path).success is True
    blind = DemonstrationPolicy("blind", "random")
    twice = [played(tmp_path, {"first": blind, "second": blind}, seed=3) for _ in range(2)]
    assert twice[0].success is False
    assert twice[0].messages == twice[1].messages
    other = played(tmp_path, {"first": blind, "second": blind}, seed=4)
    assert other.messages != twice[0].messages


@pytest.mark.parametrize(
    ("raises_in", "where", "turns"),
    [
        ("make", "making the environment", 0),
        ("turn_order", "turn_order", 0),
        ("agents", "first, turn 0: agents", 0),
        ("prompt", "first, turn 0: prompt", 0),
        ("act", "first, turn 0: act", 1),
        ("done", "first, turn 0: done", 1),
        ("success", "second, turn 0: success", 2),
    ],
)
def test_environment_exception_is_attributed_and_recorded(tmp_path, raises_in, where, turns):
    episode = played(tmp_path, raises_in=raises_in)
    assert episode.success is None
    assert episode.error.type == "environment_raised"
    assert episode.error.message.startswith(f"{where}: ZeroDivisionError: by nothing (toy.py, line ")
    assert len(episode.turns) == turns
    if raises_in == "act":
        assert episode.turns[0].reward is None
        assert episode.messages[-1] == {"role": "assistant", "content": "4", "finish_reason": "stop"}


@pytest.mark.parametrize(("raises_in", "gives"), [("done", "none"), ("success", "none"), ("act", "nan")])
def test_invalid_values_of_the_environment_are_its_error(tmp_path, raises_in, gives):
    episode = played(tmp_path, raises_in=raises_in, gives=gives)
    assert episode.success is None
    assert episode.error.type == "environment_raised"
    assert raises_in in episode.error.message


def test_a_failing_sandbox_fails_the_episode(tmp_path):
    episode = played(tmp_path, raises_in="act", raises="SandboxError")
    assert (episode.success, episode.error.type) == (None, "transport")
    assert episode.error.message == "first, turn 0: act: it is gone"


def test_failed_request_ends_the_episode_and_keeps_its_turns(tmp_path):
    failing = FixedAnswers(RequestFailedError("http_400", "too long", 3))
    episode = played(tmp_path, {"first": FixedAnswers("1"), "second": failing})
    assert (episode.success, episode.error.type) == (None, "http_400")
    assert episode.error.message == "second, turn 0: too long"
    assert (len(episode.turns), episode.calls) == (1, 4)


def test_a_missing_demonstration_method_is_one_line(tmp_path):
    with pytest.raises(InputError, match="policy knows: Player has no method dance: use a model"):
        played(tmp_path, {"first": DemonstrationPolicy("knows", "dance")})


def test_images_are_stored_in_the_run_and_sent(tmp_path):
    first = FixedAnswers("5")
    episode = played(tmp_path, {"first": first}, picture=True)
    part = episode.messages[0]["content"][1]
    assert part["type"] == "image"
    assert (tmp_path / part["image"]).read_bytes() == PNG
    assert first.requests[0][0][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_policy_requests_with_its_own_sampling(tmp_path):
    with ScriptedServer(Script(completion="5", model="m")) as server:
        client = ChatClient(EndpointPool([Endpoint(server.base_url)]), ClientConfig())
        policy = ModelPolicy("mine", client, model="m", sampling=Sampling(temperature=0.5, max_tokens=9))

        async def ask():
            async with client:
                return await policy.answer(None, [{"role": "user", "content": "?"}], 12, None)

        answer = asyncio.run(ask())
    assert (answer.text, answer.calls, answer.finish_reason) == ("5", 1, "stop")
    assert answer.usage.completion_tokens > 0
