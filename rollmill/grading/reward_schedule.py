"""Maps speedups to rewards by a ladder of steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollmill.errors import InputError


class RewardStep(BaseModel):
    """The reward of speedups above a bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    above: float = Field(ge=0, allow_inf_nan=False)
    """Exclusive bound: a speedup of exactly 1.05 gets the reward of the step below."""
    reward: float = Field(allow_inf_nan=False)


class RewardSchedule(BaseModel):
    """Steps of speedup, and the rewards below them. The highest step that is exceeded counts.

    The default gives no reward for no change and for noise, and stays between 0 and 1:

    | lower bound of the speedup's interval | reward |
    |---|---|
    | to 1.00: not faster beyond noise | 0.0 |
    | to 1.05 | 0.1 |
    | to 1.10 | 0.3 |
    | to 1.20 | 0.5 |
    | to 1.50 | 0.7 |
    | to 2.00 | 0.85 |
    | above | 1.0 |
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[RewardStep, ...] = (
        RewardStep(above=1.0, reward=0.1),
        RewardStep(above=1.05, reward=0.3),
        RewardStep(above=1.1, reward=0.5),
        RewardStep(above=1.2, reward=0.7),
        RewardStep(above=1.5, reward=0.85),
        RewardStep(above=2.0, reward=1.0),
    )
    not_faster: float = Field(default=0.0, allow_inf_nan=False)
    """Reward below the first step."""
    failed: float = Field(default=0.0, allow_inf_nan=False)
    """Reward of no change, and of one that is forbidden, does not build or is wrong."""
    by: Literal["low", "average"] = "low"
    """The compared value: the lower bound of the 95% interval, so that noise alone seldom exceeds a first step at 1
    (see `PairCount`); or the average, which noise lifts above 1 in half of all cases."""

    @model_validator(mode="after")
    def _check_ascending(self) -> Self:
        if not self.steps:
            raise ValueError("a ladder has at least one step")
        for lower, upper in pairwise(self.steps):
            if upper.above <= lower.above or upper.reward < lower.reward:
                raise ValueError(f"the step above {upper.above:g} is not higher than the one above {lower.above:g}")
        return self

    def reward(self, average: float, low: float) -> float:
        """Return the reward of a speedup, from its average and the lower bound of its interval."""
        value = low if self.by == "low" else average
        reached = [step.reward for step in self.steps if value > step.above]
        return reached[-1] if reached else self.not_faster


DEFAULT = RewardSchedule()

OBSERVED = RewardSchedule(
    steps=(
        RewardStep(above=0.95, reward=0.3),
        RewardStep(above=1.0, reward=0.7),
        RewardStep(above=1.05, reward=1.0),
        RewardStep(above=1.1, reward=1.5),
        RewardStep(above=1.2, reward=2.0),
    ),
    not_faster=-0.2,
    failed=-1.0,
    by="average",
)
"""The ladder of an existing service. It rewards noise: a change that does nothing measures between 0.95 and 1.05, so
it gets 0.3 or 0.7 by chance, 0.5 on average. For comparison with older data, not for training."""

LADDERS = {"default": DEFAULT, "observed": OBSERVED}


def read_ladder(source: str) -> RewardSchedule:
    """Return the ladder of that name (`default`, `observed`), or read one from a JSON file of `RewardSchedule`.

    Raises `InputError` if there is no such name or file, or if the file is no ladder.
    """
    if source in LADDERS:
        return LADDERS[source]
    try:
        return RewardSchedule.model_validate_json(Path(source).expanduser().read_bytes())
    except OSError as error:
        names = ", ".join(LADDERS)
        raise InputError(f"no ladder {source!r}: name one of {names}, or a JSON file that can be read") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{source} is no ladder: {where}: {first['msg']}") from error
