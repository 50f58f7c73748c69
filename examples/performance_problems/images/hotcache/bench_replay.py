"""Replays a made-up trace, some keys hotter than others, and prints what came of it."""

import hashlib
import os
import random

from hotcache import replay

rng = random.Random(os.environ.get("BENCH_SEED", "0"))
trace = [f"/page/{min(rng.randrange(9000), rng.randrange(3000), rng.randrange(3000))}" for _ in range(9_000)]
for capacity in (150, 700):
    outcome = replay(trace, capacity)
    left = hashlib.sha256(repr((outcome.evicted, outcome.kept)).encode()).hexdigest()
    print(capacity, outcome.hits, outcome.misses, left)
