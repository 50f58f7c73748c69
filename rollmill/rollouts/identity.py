"""What makes two runs the same run."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict


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
