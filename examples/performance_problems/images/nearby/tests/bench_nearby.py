"""Bus stops in a few towns and the country between them; prints digests of who is near whom."""

import hashlib
import os
import random

from nearby import Index
from places import Place

STOPS, QUESTIONS, WIDTH = 2600, 50, 60_000


def stops(rng):
    towns = [(rng.randrange(WIDTH), rng.randrange(WIDTH)) for _ in range(7)]
    for number in range(STOPS):
        x, y = rng.choice(towns)
        spread = WIDTH if number % 4 == 0 else 2500
        yield Place(x + rng.randrange(-spread, spread), y + rng.randrange(-spread, spread), f"stop {number:04}")


rng = random.Random(os.environ.get("BENCH_SEED", "0"))
places = list(stops(rng))
index = Index(places)
digest = hashlib.sha256()
for _ in range(QUESTIONS):
    near = rng.choice(places)
    x, y = near.x + rng.randrange(-900, 900), near.y + rng.randrange(-900, 900)
    digest.update(repr([(hit.squared, hit.place.name) for hit in index.nearest(x, y, 5)]).encode())
    digest.update(repr(len(index.within(x, y, 800))).encode())
print("hits", digest.hexdigest())
