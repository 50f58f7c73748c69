from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.environments.registry import find_environment
from rollmill.environments.stateful.environment import StatefulEnvironment
from rollmill.environments.stateful.settings import StatefulSettings
from rollmill.environments.stateful.worlds import NAMES
from rollmill.environments.tools import Tools
from rollmill.jobs.episodes.episode import EpisodePolicies, run_episode
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import DemonstrationPolicy
from rollmill.problems import load_problems, read_problems
from tests.environments.stateful.demonstrated import CORRIDOR, begin, brought, play, problem

CORNER = {"grid": ["#######", "#--@--#", "#--$-.#", "#-----#", "#######"]}
"""A puzzle whose box, once pushed down, is at a wall and cannot reach its goal."""


def test_environment_is_registered():
    assert find_environment("stateful_env") is StatefulEnvironment


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_solves_every_problem_and_the_random_policy_none(name):
    chosen = StatefulSettings(world=name, problems=12)
    problems = list(brought(chosen))
    assert [play(puzzle, chosen, "oracle").success for puzzle in problems] == [True] * 12
    assert sum(play(puzzle, chosen, "random", seed=seed).success for seed, puzzle in enumerate(problems)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_oracle_takes_the_shortest_path_and_random_finds_none(name, difficulty):
    chosen = StatefulSettings(world=name, difficulty=difficulty, problems=40, single_agent=True)
    problems = list(brought(chosen))
    assert len({orjson.dumps(puzzle.fields["state"]) for puzzle in problems}) >= 39
    for puzzle in problems:
        assert StatefulEnvironment.problem_fault(chosen, puzzle) is None
        solved = play(puzzle, chosen, "oracle")
        assert solved.success is True
        assert solved._game.used == puzzle.fields["optimal_length"]
    lucky = sum(play(puzzle, chosen, "random", seed=seed).success for seed, puzzle in enumerate(problems))
    assert lucky <= 1


def test_problems_are_loaded_as_they_were_made(tmp_path):
    chosen = StatefulSettings(world="mixed", problems=10)
    source = StatefulEnvironment.source(chosen, tmp_path / "made")
    loaded = load_problems(
        source, tmp_path / "run", problem_fault=lambda puzzle: StatefulEnvironment.problem_fault(chosen, puzzle)
    )
    problems = list(read_problems(loaded.path))
    assert [puzzle.fields["world"] for puzzle in problems] == [*NAMES, *NAMES]
    assert all(play(puzzle, chosen, "oracle").success for puzzle in problems)
    assert problems[3].instance_id == "eight_queens-medium-0-3"
    written = Path(source.dataset).read_bytes()
    StatefulEnvironment.source(StatefulSettings(world="mixed", problems=12), tmp_path / "more")
    assert (tmp_path / "more" / "stateful_problems.jsonl").read_bytes().startswith(written)


@pytest.mark.parametrize("render", ["text", "image"])
def test_an_episode_is_played_to_its_end(tmp_path, render):
    chosen = StatefulSettings(render=render)

    async def at_once(call):
        return call()

    cast = EpisodePolicies(
        {name: DemonstrationPolicy("oracle", "oracle") for name in ("planner", "tool_caller")},
        3,
        ImageFolder(tmp_path),
    )

    def making():
        return StatefulEnvironment.make(problem("path_finding", CORRIDOR), 0, chosen, Tools())

    played = asyncio.run(run_episode(making, cast, seed=1, in_thread=at_once))
    assert (played.error, played.success) == (None, True)
    assert [(turn.agent_name, turn.reward) for turn in played.turns] == [
        ("planner", 0.5),
        ("tool_caller", pytest.approx(1.5 - 0.03)),
    ]
    shown = played.messages[1]["content"]
    assert ("@..G" in shown) if render == "text" else (shown[0]["media_type"] == "image/png")
    assert played.messages[2]["content"] == "<plan>right, right, right</plan>"
    assert "The plan: right, right, right" in str(played.messages[4]["content"])
    assert played.messages[-1]["content"] == '<actions>["right","right","right"]</actions>'


def test_rewards_of_the_tool_caller():
    environment = begin("path_finding", CORRIDOR)
    act = environment.agents["tool_caller"].act
    step = act('<actions>["right", "up", "right"]</actions>')
    assert step.reward == pytest.approx(-0.01 - 0.1)
    assert step.info == {
        "done": ["right"],
        "invalid": "'up'",
        "fault": "the grid ends there",
        "not_done": 1,
        "used": 1,
        "shortest": 3,
        "distance": 2,
        "solved": False,
    }
    assert "Then 'up' was invalid: the grid ends there." in environment.agents["planner"].prompt()[1]["content"]
    assert act('<actions>["left"]</actions>').reward == pytest.approx(-0.01)
    assert act("up").reward == -0.2
    assert environment.success is False
    step = act('<actions>["right", "RIGHT", "right", "right", "left"]</actions>')
    assert step.reward == pytest.approx(-0.03 + 1 + 0.5 * 3 / 5)
    assert (step.info["not_done"], environment.success, environment.done) == (2, True, True)


@pytest.mark.parametrize(
    ("message", "reward"),
    [
        ("<plan>right, right, right</plan>", 0.5),
        ("<plan>\n1. right\n2. right.\n- then on to the goal</plan>", 0.5 * 2 / 3),
        ("<plan>right, up, right</plan>", 0.5 / 3),
        ("<plan>go east until the goal</plan>", 0.0),
        ("<plan>left</plan> no, better <plan>right</plan>", 0.5 / 3),
        ("<plan></plan>", -0.2),
        ("right, right, right", -0.2),
    ],
)
def test_rewards_of_the_planner(message, reward):
    environment = begin("path_finding", CORRIDOR)
    assert environment.agents["planner"].act(message).reward == pytest.approx(reward)
    assert environment.agents["planner"].prompt()[1]["content"] == "The state:\n@..G\n###."


def test_plan_into_a_wrong_or_dead_end_state_is_penalised():
    environment = begin("path_finding", {"grid": ["....@G"]})
    assert environment.agents["planner"].act("<plan>left, left, left</plan>").reward == -0.5
    environment = begin("sokoban", CORNER)
    assert environment.agents["planner"].act("<plan>push down</plan>").reward == -0.5
    assert environment.done is False


def test_a_dead_end_ends_the_episode_without_success():
    environment = begin("sokoban", CORNER, single_agent=True)
    step = environment.agents["stateful_single_agent"].act('<actions>["push down"]</actions>')
    assert (environment.done, environment.success, step.info["distance"]) == (True, False, None)
    assert environment.agents["stateful_single_agent"].oracle() == '<actions>["up"]</actions>'


def test_actions_of_a_turn_are_limited():
    environment = begin("path_finding", CORRIDOR, max_actions=2)
    act = environment.agents["tool_caller"].act
    assert act('<actions>["right", "right", "right"]</actions>').info["not_done"] == 1
    assert environment.success is False
    assert act(environment.agents["tool_caller"].oracle()).info["solved"] is True


@pytest.mark.parametrize(
    ("message", "done"),
    [
        ('<actions>["right"]</actions> or <actions>["right", "right"]</actions>', 2),
        ('<actions>["right"]</actions> or <actions>[right, right]</actions>', 1),
        ('<actions>["right"]</actions> <actions>[]</actions>', 1),
        ('I write <actions> thus: <actions>["right"]</actions>', 1),
        ('<actions>["right", 3]</actions>', None),
        ('<actions>"right"</actions>', None),
        ('<actions>["right"]', None),
        ("<actions>" + "[" * 100_000 + "</actions>", None),
        ("<actions>" * 100_000, None),
    ],
)
def test_last_valid_list_is_used(message, done):
    step = begin("path_finding", CORRIDOR).agents["tool_caller"].act(message)
    assert ("malformed" in step.info) if done is None else (len(step.info["done"]) == done)


@settings(max_examples=150, deadline=None)
@given(
    world=st.sampled_from([("path_finding", CORRIDOR), ("sokoban", CORNER)]),
    text=st.one_of(
        st.text(st.characters()),
        st.lists(st.text(st.characters())).map(lambda texts: f"<actions>{texts}</actions>"),
        st.lists(st.text()).map(lambda texts: f"<actions>{orjson.dumps(texts).decode()}</actions><plan>{texts}</plan>"),
    ),
)
def test_no_agent_text_raises(world, text):
    environment = begin(*world)
    for name in environment.turn_order:
        environment.agents[name].prompt()
        step = environment.agents[name].act(text)
        assert math.isfinite(step.reward)
        orjson.dumps(dict(step.info))
        orjson.dumps(environment.agents[name].prompt())
    assert environment.success is False


def test_demonstrations_are_the_same_each_time_and_legal():
    for puzzle in brought(StatefulSettings(world="mixed", problems=5)):
        message = []
        for _ in range(2):
            environment = StatefulEnvironment.make(puzzle, 0, StatefulSettings(), Tools())
            acting = environment.agents["tool_caller"]
            message.append((acting.oracle(), acting.random(random.Random(1))))
            assert acting.act(message[-1][1]).info["invalid"] is None
        assert message[0] == message[1]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "fields.world is None: use path_finding, sokoban, sudoku, eight_queens, blocksworld"),
        (
            {"world": "chess", "state": {}},
            "fields.world is 'chess': use path_finding, sokoban, sudoku, eight_queens, blocksworld",
        ),
        ({"world": "sudoku"}, "fields.state is not an object"),
        ({"world": "path_finding", "state": {"grid": ["+."]}}, "the puzzle is solved already"),
        (
            {"world": "path_finding", "state": {"grid": ["@G"]}, "optimal_length": 0},
            "fields.optimal_length is 0: it must be a number from 1, or left out",
        ),
        ({"world": "path_finding", "state": {"grid": ["@G"]}}, None),
    ],
)
def test_unplayable_problem_has_a_reason(fields, fault):
    puzzle = problem("x", {}).model_copy(update={"fields": fields})
    assert StatefulEnvironment.problem_fault(StatefulSettings(), puzzle) == fault
