from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollmill.records import Problem
from tasks.generation import LEAST_SHARD, MOST_SHARD, SHARD_S, shard_size, shards


def progress(rate: float) -> Any:
    return cast(Any, SimpleNamespace(snapshot=lambda: SimpleNamespace(rollouts_per_s=rate)))


def session_of(problems: int, num_rollout: int, rate: float) -> Any:
    """Return a stub of a session with the attributes that `shards` uses."""
    problem_rows = (Problem(instance_id=str(number), prompt="q") for number in range(problems))
    run = SimpleNamespace(problems=lambda: problem_rows, num_rollout=num_rollout)
    return cast(Any, SimpleNamespace(run=run, wait_for_room=lambda: None, progress=progress(rate)))


@pytest.mark.parametrize(("problems", "num_rollout"), [(0, 4), (1, 1), (40, 16), (1000, 16), (7, 300), (3, 1000)])
@pytest.mark.parametrize("rate", [0.0, 50.0, 1e6])
def test_shards_contain_every_problem_once(problems, num_rollout, rate):
    cut = list(shards(session_of(problems, num_rollout, rate)))
    assert [first for first, _ in cut] == [int(shard[0].instance_id) for _, shard in cut]
    assert [problem.instance_id for _, shard in cut for problem in shard] == [str(n) for n in range(problems)]
    assert all(len(shard) * num_rollout >= LEAST_SHARD for _, shard in cut[:-1])


@pytest.mark.parametrize(
    ("rate", "num_rollout", "problems"),
    [
        (0.0, 16, LEAST_SHARD // 16),
        (100.0, 10, int(100 * SHARD_S) // 10),
        (1e9, 16, MOST_SHARD // 16),
        (0.0, 10_000, 1),
    ],
)
def test_shard_size_follows_the_rate(rate, num_rollout, problems):
    assert shard_size(progress(rate), num_rollout) == problems
