"""Settings of the stateful worlds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rollmill.environments.stateful.world import Difficulty
from rollmill.environments.stateful.worlds import WorldName


class StatefulSettings(BaseModel):
    """Worlds, prompts and rewards.

    The tool caller's reward for a turn is `goal_reward + optimality_bonus * min(1, shortest / used)` if the turn
    reaches the goal, less `step_cost` for every action done, less `invalid_penalty` if one was invalid; or
    `-malformed_penalty` where no list of actions can be read. `used` counts the actions done since the episode began.

    The planner's reward is `plan_reward * (distance now - distance after the plan) / distance now`, at least
    `-plan_reward`: the actions that the plan names are tried on a copy of the state, as far as they are valid, and
    `max_actions` at most. A plan into a dead end earns `-plan_reward`, a plan that names no action 0, and no plan
    `-malformed_penalty`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: WorldName | Literal["mixed"] = "path_finding"
    """Of the problems that the environment brings; `mixed`: all, in turn. A data set's problems name their own."""
    difficulty: Difficulty = "medium"
    """Of the problems that the environment brings: the sizes are the worlds' own."""
    problems: int = Field(default=200, ge=1, le=100_000)
    """How many problems the environment brings."""
    seed: int = Field(default=0, ge=0)
    """Of the problems that the environment brings. Problem i is the same however many there are."""
    single_agent: bool = False
    """Whether one agent acts alone, without a planner."""
    render: Literal["text", "image"] = "text"
    """How agents are shown the state; `image` wants a model that takes images."""
    max_actions: int = Field(default=30, ge=1, le=1000)
    """Actions of one turn; what stands behind them in the list is not done."""
    step_cost: float = Field(default=0.01, ge=0, le=100)
    """Of every action that is done."""
    invalid_penalty: float = Field(default=0.1, ge=0, le=100)
    """For an invalid action, which ends its turn."""
    malformed_penalty: float = Field(default=0.2, ge=0, le=100)
    """For an answer in which no plan or no actions can be found."""
    goal_reward: float = Field(default=1.0, ge=0, le=100)
    """For reaching the goal."""
    optimality_bonus: float = Field(default=0.5, ge=0, le=100)
    """For reaching it in as few actions as can be; less where more were used."""
    plan_reward: float = Field(default=0.5, ge=0, le=100)
    """For a plan that reaches the goal; less where it only comes nearer."""
