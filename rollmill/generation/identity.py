"""The identity of a run: everything that determines its outputs, with a hash to compare it by."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

ROW_KEY_DIGITS = 16


class Identity(BaseModel):
    """Everything that determines a run's outputs, and nothing else, in two parts.

    `generation` determines the completions, `verification` their verdicts. The number of rollouts per problem is in
    neither: a rollout's seed depends on its own sample_id alone, so that a run can be continued with more of them.
    """

    model_config = ConfigDict(frozen=True)

    generation: dict[str, Any]
    verification: dict[str, Any]

    @property
    def key(self) -> str:
        """Return the identity's SHA-256: 64 hexadecimal digits."""
        return content_key({"generation": self.generation, "verification": self.verification})

    @property
    def row_key(self) -> str:
        """Return the first digits of `key`, which every row of the run's journal carries."""
        return self.key[:ROW_KEY_DIGITS]

    @property
    def max_tokens(self) -> int:
        """Return the limit of a completion's tokens."""
        return int(self.generation["sampling"]["max_tokens"])

    def with_max_tokens(self, limit: int) -> Identity:
        """Return the same identity with another limit of completion tokens."""
        sampling = self.generation["sampling"] | {"max_tokens": limit}
        return self.model_copy(update={"generation": self.generation | {"sampling": sampling}})

    def differences(self, other: Identity) -> dict[str, tuple[Any, Any]]:
        """Return the parameters that differ, each with its values in this identity and in the other."""
        mine, theirs = self.generation | self.verification, other.generation | other.verification
        names = [*mine, *(name for name in theirs if name not in mine)]
        return {name: (mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)}


def content_key(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def rollout_seed(run_seed: int, instance_id: str, sample_id: int, attempt: int = 0) -> int:
    """Derive the sampling seed of one rollout, 0 <= seed < 2**31: the same on every machine and in every call.

    Args:
        run_seed: `--seed` of the run.
        instance_id: Identifies the problem.
        sample_id: Index of the rollout among those of the problem.
        attempt: 0 at first; raised to sample the same rollout again with another seed.
    """
    content = orjson.dumps([run_seed, instance_id, sample_id, attempt])
    # The top 31 of 32 bits: servers take signed 32-bit seeds.
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1
