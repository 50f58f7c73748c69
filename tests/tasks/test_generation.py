from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollmill.records import Problem
from tasks.generation import LEAST_SHARD, MOST_SHARDS, shards


def run_of(problems: int, num_rollout: int) -> Any:
    """As much of a run as shards are cut from."""
    made = (Problem(instance_id=str(number), prompt="q") for number in range(problems))
    return cast(Any, SimpleNamespace(problems=lambda: made, num_rollout=num_rollout, expected=problems * num_rollout))


@pytest.mark.parametrize(
    ("problems", "num_rollout"), [(1, 1), (40, 16), (1000, 16), (7, 300), (100_000, 10), (3, 1000)]
)
def test_shards_hold_every_problem_once_and_are_few(problems, num_rollout):
    cut = list(shards(run_of(problems, num_rollout)))
    assert [first for first, _ in cut] == [int(shard[0].instance_id) for _, shard in cut]
    assert [problem.instance_id for _, shard in cut for problem in shard] == [str(n) for n in range(problems)]
    assert all(len(shard) * num_rollout >= LEAST_SHARD for _, shard in cut[:-1])
    assert len(cut) <= MOST_SHARDS + 1
