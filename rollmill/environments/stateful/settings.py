"""Settings of the stateful environment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rollmill.environments.stateful.world import Difficulty
from rollmill.environments.stateful.worlds import WorldName


class StatefulSettings(BaseModel):
    """Settings of worlds, prompts and rewards.

    The tool caller's reward for a turn is `goal_reward + optimality_bonus * min(1, shortest / used)` if the turn
    reaches the goal, less `step_cost` for every action done, less `invalid_penalty` if one was invalid; or
    `-malformed_penalty` if no list of actions can be read. `used` counts the actions done since the episode began.

    The planner's reward is `plan_reward * (distance now - distance after the plan) / distance now`, at least
    `-plan_reward`. The plan's actions, at most `max_actions` and up to the first invalid one, are applied to a copy of
    the state. A plan into a dead end earns `-plan_reward`, a plan without actions 0, and no plan `-malformed_penalty`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: WorldName | Literal["mixed"] = "path_finding"
    """World of the built-in problems; `mixed`: all, in turn. A data set's problems name their own."""
    difficulty: Difficulty = "medium"
    """Difficulty of the built-in problems; each world defines its sizes."""
    problems: int = Field(default=200, ge=1, le=100_000)
    """Number of built-in problems."""
    seed: int = Field(default=0, ge=0)
    """Seed of the built-in problems. Problem i does not depend on their number."""
    single_agent: bool = False
    """One agent that acts, without a planner."""
    render: Literal["text", "image"] = "text"
    """Form of the state in prompts; `image` needs a multimodal model."""
    max_actions: int = Field(default=30, ge=1, le=1000)
    """Most actions of one turn; further actions in the list are ignored."""
    step_cost: float = Field(default=0.01, ge=0, le=100)
    """Cost of every action that is done."""
    invalid_penalty: float = Field(default=0.1, ge=0, le=100)
    """Penalty of an invalid action, which ends its turn."""
    malformed_penalty: float = Field(default=0.2, ge=0, le=100)
    """Penalty of a completion without a plan or a list of actions."""
    goal_reward: float = Field(default=1.0, ge=0, le=100)
    """Reward for reaching the goal."""
    optimality_bonus: float = Field(default=0.5, ge=0, le=100)
    """Bonus for reaching it with the fewest possible actions; proportionally less with more."""
    plan_reward: float = Field(default=0.5, ge=0, le=100)
    """Reward of a plan that reaches the goal; proportionally less for one that only comes nearer."""
