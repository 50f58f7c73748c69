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
        (0.0, 2, 64, MANY, 64),  # at first: every slot once
        (0.0, 2, 64, 8 * 40, 40),  # few: shared by all
        (0.0, 2, 64, 8, 16),  # fewer: what keeps the slots full with the others' in hand
        (100.0, 2, 64, MANY, int(50 * SHARD_S)),
        (2.0, 2, 64, MANY, WAVES * 64),  # slow answers: the slots decide
        (1e6, 2, 64, MANY, MOST_SHARD),
        (1000.0, 1000, 8, MANY, 250),  # many workers: longer shards
        (100.0, 2, 64, 8 * 100, 100),  # towards the end
        (100.0, 2, 1, 1, 1),
    ],
)
def test_how_many_rollouts_make_a_shard(rate, workers, slots, uncut, size):
    assert shard_size(rate=rate, workers=workers, slots=slots, ahead=AHEAD, uncut=uncut) == size


@pytest.mark.parametrize("workers", [1, 60, 61, 1000])
def test_all_workers_together_end_only_so_many_shards_a_second(workers):
    rate = 2.0 * workers
    size = shard_size(rate=rate, workers=workers, slots=1, ahead=AHEAD, uncut=MANY)
    assert rate / size <= MOST_SHARDS_PER_S + 0.1
    assert AHEAD * size <= MOST_SHARD
