from __future__ import annotations

import pytest

from rollmill.generation.job import GenerationJob
from tasks.generation import MOST_SHARD, SHARD_S
from tasks.sharding import MOST_SHARDS_PER_S, WAVES, shard_size

MANY = 10**9
AHEAD = GenerationJob.shards_ahead


@pytest.mark.parametrize(
    ("rate", "workers", "slots", "uncut", "size"),
    [
        (0.0, 2, 64, MANY, 64),  # no rate yet: one rollout per slot
        (0.0, 2, 64, 8 * 40, 40),  # few rollouts: shared by all workers
        (0.0, 2, 64, 8, 16),  # still fewer: enough to fill the slots, with the shards that are ahead
        (100.0, 2, 64, MANY, int(50 * SHARD_S)),
        (2.0, 2, 64, MANY, WAVES * 64),  # slow completions: bounded by the slots
        (1e6, 2, 64, MANY, MOST_SHARD),
        (1000.0, 1000, 8, MANY, 250),  # many workers: longer shards
        (100.0, 2, 64, 8 * 100, 100),  # towards the end
        (100.0, 2, 1, 1, 1),
    ],
)
def test_shard_size(rate, workers, slots, uncut, size):
    assert shard_size(rate=rate, workers=workers, slots=slots, ahead=AHEAD, uncut=uncut) == size


@pytest.mark.parametrize("workers", [1, 60, 61, 1000])
def test_shards_per_second_of_all_workers_are_bounded(workers):
    rate = 2.0 * workers
    size = shard_size(rate=rate, workers=workers, slots=1, ahead=AHEAD, uncut=MANY)
    assert rate / size <= MOST_SHARDS_PER_S + 0.1
    assert AHEAD * size <= MOST_SHARD
