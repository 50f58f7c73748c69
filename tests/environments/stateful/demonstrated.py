"""Play episodes without a model, and make problems for them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from rollmill.environments.stateful.environment import StatefulEnvironment
from rollmill.environments.stateful.making import make_problems
from rollmill.environments.stateful.settings import StatefulSettings
from rollmill.environments.stateful.world import World
from rollmill.environments.tools import Tools
from rollmill.records import Problem

CORRIDOR = {"grid": ["@..G", "###."]}
"""Three steps to the right."""


def problem(world: str, state: dict[str, Any], **fields: Any) -> Problem:
    return Problem(instance_id="one", prompt="?", fields={"world": world, "state": state, **fields})


def begin(world: str, state: dict[str, Any], **settings: Any) -> StatefulEnvironment:
    return StatefulEnvironment.make(problem(world, state), 0, StatefulSettings(**settings), Tools())


def brought(settings: StatefulSettings) -> Iterator[Problem]:
    for row in make_problems(settings):
        fields = {key: row[key] for key in ("world", "state", "optimal_length")}
        yield Problem(instance_id=row["instance_id"], prompt=row["prompt"], fields=fields)


def play(
    puzzle: Problem, settings: StatefulSettings, kind: str, *, seed: int = 0, turns: int = 3
) -> StatefulEnvironment:
    environment = StatefulEnvironment.make(puzzle, seed, settings, Tools())
    rng = random.Random(seed)
    for _ in range(turns):
        for name in environment.turn_order:
            agent = environment.agents[name]
            environment.agents[name].act(agent.oracle() if kind == "oracle" else agent.random(rng))
            if environment.done:
                return environment
    return environment


def fewest_actions(world: World[Any], start: Any) -> int:
    """Find the shortest plan by breadth-first search, with nothing but the rules."""
    distance = {start: 0}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if world.is_goal(state):
            return distance[state]
        for action in world.legal_actions(state):
            after = world.next_state(state, action)
            if after not in distance:
                distance[after] = distance[state] + 1
                queue.append(after)
    raise AssertionError("there is no way")
