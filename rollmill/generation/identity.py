"""What makes two runs the same run."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

ROW_KEY_DIGITS = 16


class Identity(BaseModel):
    """Everything that determines a run's outputs, and nothing else, in two parts.

    `generation` determines the completions, `verification` what is made of them. How many rollouts a problem gets is in
    neither: a rollout's seed depends on its own number alone, so that a run with more of them continues one with fewer.
    """

    model_config = ConfigDict(frozen=True)

    generation: dict[str, Any]
    verification: dict[str, Any]

    @property
    def key(self) -> str:
        """64 hexadecimal digits."""
        return content_key({"generation": self.generation, "verification": self.verification})

    @property
    def row_key(self) -> str:
        """The first digits of `key`, which every row of the run's journal carries."""
        return self.key[:ROW_KEY_DIGITS]

    @property
    def max_tokens(self) -> int:
        """The limit of a completion's tokens."""
        return int(self.generation["sampling"]["max_tokens"])

    def with_max_tokens(self, limit: int) -> Identity:
        """Return the identity of the run that is the same but for this limit."""
        sampling = self.generation["sampling"] | {"max_tokens": limit}
        return self.model_copy(update={"generation": self.generation | {"sampling": sampling}})

    def differences(self, other: Identity) -> dict[str, tuple[Any, Any]]:
        """Parameter -> (here, there) for every one that differs."""
        here, there = self.generation | self.verification, other.generation | other.verification
        names = [*here, *(name for name in there if name not in here)]
        return {name: (here.get(name), there.get(name)) for name in names if here.get(name) != there.get(name)}


def content_key(value: object) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def rollout_seed(run_seed: int, instance_id: str, sample_id: int, attempt: int = 0) -> int:
    """The sampling seed of one rollout, 0 <= seed < 2**31, wherever and whenever it is made."""
    named = orjson.dumps([run_seed, instance_id, sample_id, attempt])
    return int.from_bytes(hashlib.sha256(named).digest()[:4], "big") >> 1
