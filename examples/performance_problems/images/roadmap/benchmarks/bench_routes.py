"""Routes across a city of crooked blocks; prints their lengths and a digest of their stops."""

import hashlib
import os
import random

from roadmap import Network, distances, route

SIDE, ROUTES = 48, 6


def city(rng):
    """A network, and its crossings by their place: column by column, with numbers in no order."""
    network = Network()
    crossings = rng.sample(range(SIDE * SIDE), SIDE * SIDE)
    for place, here in enumerate(crossings):
        if place + SIDE < len(crossings):
            network.add_road(here, crossings[place + SIDE], rng.randrange(1, 6))
        if (place + 1) % SIDE:
            network.add_road(here, crossings[place + 1], rng.randrange(1, 6))
    for _ in range(SIDE * 3):
        start, end = rng.sample(crossings, 2)
        network.add_road(start, end, rng.randrange(50, 150), one_way=True)
    return network, crossings


def main():
    rng = random.Random(os.environ.get("BENCH_SEED", "0"))
    network, crossings = city(rng)
    digest = hashlib.sha256()
    for _ in range(ROUTES):
        found = route(network, rng.choice(crossings[:SIDE]), rng.choice(crossings[-SIDE:]))
        digest.update(repr(found.stops).encode())
        print("length", found.length)
    reached = distances(network, rng.choice(crossings))
    digest.update(repr(sorted(reached.items())).encode())
    print("routes", digest.hexdigest())


if __name__ == "__main__":
    main()
