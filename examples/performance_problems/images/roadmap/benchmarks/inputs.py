"""Prints cases for the worker, one a line, all of it derived from $BENCH_SEED: cities, or with BENCH_PART=edge hamlets.

A case is the kind of its places' names and a list of steps. "network" begins a new network; "roads", "place" and
"road" add to it, at any time; "route" and "distances" ask; "places" lists; "spoil" changes the distances given last.
"""

import os
import random
from json import dumps

KINDS = ("integer", "text", "pair", "half")


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{os.environ.get('BENCH_SEED', '0')}/{part}")
    for case in edge_cases(rng, 250) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Cities of several sizes and shapes, which change while routes are planned, and hamlets in between."""
    cases = edge_cases(rng, 10)
    for side, longest, routes in ((50, 6, 3), (38, 1, 3), (36, 300, 3), (20, 3, 6)):
        places, roads = city(rng, side, longest)
        steps = [["network"], ["roads", roads]]
        for _ in range(routes):
            steps.append(["route", rng.choice(places[:side]), rng.choice(places[-side:])])
        start, end, _, one_way = rng.choice([road for road in roads if road[2] > 1])
        asked = ["distances", start] if side < 37 else ["route", start, end]
        steps += [asked, ["road", start, end, 1, one_way], asked]
        cases.append({"kind": rng.choice(KINDS), "steps": steps})
    places, roads = country(rng, 800, 2400)
    steps = [["network"], ["roads", roads], ["distances", rng.choice(places)], ["distances", rng.choice(places)]]
    cases.append({"kind": rng.choice(KINDS), "steps": steps})
    places, roads = star(rng, 700)
    steps = [["network"], ["roads", roads], ["distances", places[0]], ["distances", places[1]]]
    cases.append({"kind": rng.choice(KINDS), "steps": steps})
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Few places with many equal routes, one-way streets, parallel roads, places without any, and unknown ones."""
    cases = []
    while len(cases) < count:
        steps = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            steps += hamlet(rng)
        cases.append({"kind": rng.choice(KINDS), "steps": steps})
    return cases


def hamlet(rng):
    """Steps with a new network, of which every two may be a change and a question."""
    size = rng.choice((2, 3, 4, 6, 8, 12, 16, 25))
    shape = rng.randrange(4)
    if shape == 0:
        places, roads = city(rng, rng.randrange(2, 6), rng.choice((1, 1, 2, 3)))
    elif shape == 1:
        places, roads = country(rng, size, size * 3, rng.choice((1, 2, 3, 9, 10**20)))
    elif shape == 2:
        places, roads = star(rng, size)
    else:
        places, roads = layers(rng, rng.randrange(2, 5), rng.randrange(2, 5))
    steps = [["network"], ["roads", roads]]
    if rng.random() < 0.2:
        steps.insert(1, ["place", rng.choice(places)])
    for _ in range(rng.randrange(3, 10)):
        start, end = rng.choice(places), rng.choice(places)
        if rng.random() < 0.08:
            start = rng.choice((start, 10_000))
            end = rng.choice((end, 10_001))
        steps.append(rng.choice((["route", start, end], ["route", start, end], ["distances", start], ["places"])))
        if rng.random() < 0.35:
            asked = steps[-1]
            shorter = ["road", *rng.choice(roads)[:2], 1, rng.random() < 0.4]
            new_place = ["place", rng.randrange(9_000, 9_009)]
            steps.append(rng.choice((shorter, shorter, a_road(rng, places), ["spoil"], new_place)))
            steps.append(asked)
    return steps


def a_road(rng, places):
    """A road of any length, which may be wrong, to a place that may be new."""
    end = rng.choice((rng.choice(places), rng.choice(places), rng.randrange(9_000, 9_009)))
    return ["road", rng.choice(places), end, rng.choice((1, 1, 1, 2, 3, 10**20, 0, -2)), rng.random() < 0.4]


def city(rng, side, longest):
    """Crooked blocks, and a few fast one-way streets across; places column by column, with numbers in no order."""
    places = rng.sample(range(side * side), side * side)
    roads = []
    for number, here in enumerate(places):
        if number + side < len(places):
            roads.append([here, places[number + side], rng.randint(1, longest), False])
        if (number + 1) % side:
            roads.append([here, places[number + 1], rng.randint(1, longest), False])
    for _ in range(side):
        start, end = rng.sample(places, 2)
        roads.append([start, end, rng.randint(side * longest // 2 + 1, side * longest * 2), True])
    rng.shuffle(roads)
    return places, roads


def country(rng, size, count, longest=50):
    """Roads between any places, some of them parallel, or from one to itself; not all can be reached."""
    places = rng.sample(range(size * 2), size)
    ends = [rng.choices(places, k=2) for _ in range(count)]
    ends += rng.choices(ends, k=count // 6)
    return places, [[*pair, rng.randint(1, longest), rng.random() < 0.3] for pair in ends]


def star(rng, size):
    """Everything is near one place, and some of the rest near each other: many are open at a time."""
    places = rng.sample(range(size * 2), size)
    roads = [[places[0], place, rng.choice((1, 2, 2, 3)), False] for place in places[1:]]
    roads += [[*rng.sample(places, 2), rng.choice((1, 1, 2)), rng.random() < 0.3] for _ in range(size)]
    return places, roads


def layers(rng, width, depth):
    """Equal routes from layer to layer."""
    numbers = rng.sample(range(100), width * depth)
    rows = [numbers[at : at + width] for at in range(0, len(numbers), width)]
    length = rng.choice((1, 3))
    roads = [[start, end, length, True] for row, below in zip(rows, rows[1:]) for start in row for end in below]
    rng.shuffle(roads)
    return numbers, [road for road in roads if rng.random() < 0.85] or roads


if __name__ == "__main__":
    main()
