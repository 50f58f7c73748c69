"""Prints cases for bench_worker.py, one a line: places, and questions about them. $BENCH_SEED decides what they are.

Questions are ["nearest", x, y, count], also without count, ["within", x, y, radius] and ["length"]. In between the list
of places changes by ["change", number, x, y, name] and ["append", x, y, name], ["renew"] makes another index of it, and
["spoil"] changes the answer given last. With BENCH_PART=edge there are few places and many ties.
"""

import os
import random
from json import dumps

NAMES = ("Mill", "mill", "Quay", "Église", "Zoo", "a", "", "日本", "Mill Lane", "\U0001f68f", "10", "9")


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{part}{os.environ.get('BENCH_SEED', '0')}")
    for case in edge_cases(rng, 260) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Bus stops of several counties, each asked a number of times, and small maps in between."""
    cases = edge_cases(rng, 10)
    sizes = ((2000, 2500, 120), (2000, 60_000, 100), (1000, 200, 120), (400, 9000, 180), (60, 500, 200))
    for count, spread, questions in sizes:
        places = county(rng, count, spread)
        calls = [question(rng, places, rng.choice((300, 800, 3000))) for _ in range(questions)]
        cases.append({"places": places, "calls": calls})
    places = county(rng, 700, 4000)
    changed = rng.randrange(len(places))
    x, y, _ = places[rng.randrange(len(places))]
    asked = ["nearest", x, y, 4]
    calls = [asked, ["change", changed, x, y, "new"], asked, ["renew"], asked]
    cases.append({"places": places, "calls": calls + [question(rng, places, 500) for _ in range(90)]})
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Few places: none, one, many at the same point or on a line, equal distances and names, and very distant ones."""
    cases = [
        {"places": [], "calls": [["nearest", 3, 4], ["nearest", 0, 0, 5], ["within", 0, 0, 9], ["length"]]},
        {"places": [[5, -5, "one"]], "calls": [["nearest", 5, -5, 0], ["nearest", 10**9, 1, 7], ["within", 4, -5, 1]]},
    ]
    while len(cases) < count:
        size = rng.choice((1, 2, 3, 4, 6, 9, 15, 30, 80))
        kind = rng.choice((dense, dense, dense, same_point, on_a_line, lattice, distant, huge, small_county))
        places = kind(rng, size)
        cases.append({"places": places, "calls": edge_calls(rng, places)})
    rng.shuffle(cases)
    return cases


def edge_calls(rng, places):
    calls = []
    reach = max(2, min(max(abs(x) + abs(y) for x, y, _ in places), 3000))
    for _ in range(rng.randrange(4, 12)):
        asked = question(rng, places, rng.choice((1, 2, 5, reach)))
        calls.append(asked)
        if rng.random() < 0.35:
            x, y, _ = rng.choice(places)
            place = [x + rng.randrange(-2, 3), y, rng.choice(NAMES)]
            change = rng.choice((["change", rng.randrange(len(places)), *place], ["append", *place]))
            calls += [*rng.choice(([["spoil"]], [change], [change, ["renew"]])), asked]
    calls.append(["length"])
    return calls


def question(rng, places, reach):
    """About a point that is near a place, or is one, or has one exactly on the border of the radius."""
    x, y, _ = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0:
        return ["within", x + 3 * reach, y - 4 * reach, 5 * reach - rng.randrange(2)]
    if kind < 6:
        x, y = x + rng.randint(-reach, reach), y + rng.randint(-reach, reach)
    if kind == 7:
        x, y = x + rng.choice((-60, 60)) * reach, y - rng.choice((0, 1, 80)) * reach
    if rng.random() < 0.35:
        return ["within", x, y, rng.choice((0, 1, reach, reach, 2 * reach))]
    if rng.random() < 0.2:
        return ["nearest", x, y]
    if len(places) > 99:
        return ["nearest", x, y, rng.choice((1, 5, 5, 8, 30))]
    return ["nearest", x, y, rng.choice((0, 1, 2, 3, 5, 5, 8, 20, len(places), len(places) + 3))]


def county(rng, count, spread):
    """Towns, and the country between them."""
    width = 60_000
    towns = [(rng.randrange(-width, width), rng.randrange(width)) for _ in range(7)]
    places = []
    for number in range(count):
        x, y = rng.choice(towns)
        far = width if number % 4 == 0 else spread
        place = [x + rng.randrange(-far, far), y + rng.randrange(-far, far), f"stop {rng.randrange(count):04}"]
        if number and rng.random() < 0.05:
            place[:2] = rng.choice(places)[:2]
        places.append(place)
    return places


def small_county(rng, size):
    return county(rng, size, 400)


def dense(rng, size):
    """Many at the same distance, some with the same name, some twice."""
    width = rng.choice((1, 2, 4, 8))
    return [[rng.randint(-width, width), rng.randint(-width, width), rng.choice(NAMES)] for _ in range(size)]


def same_point(rng, size):
    x, y = rng.randrange(-99, 99), rng.randrange(-99, 99)
    return [[x, y, rng.choice(NAMES)] for _ in range(size)]


def on_a_line(rng, size):
    upright, at, width = rng.random() < 0.5, rng.randrange(-9, 9), rng.choice((3, size, 30 * size))
    numbers = [rng.randint(-width, width) for _ in range(size)]
    return [[at, number, rng.choice(NAMES)] if upright else [number, at, rng.choice(NAMES)] for number in numbers]


def lattice(rng, size):
    """Regular places in no order."""
    step = rng.choice((1, 10, 250))
    places = [[step * (number % 6), step * (number // 6), rng.choice(NAMES)] for number in range(size)]
    rng.shuffle(places)
    return places


def distant(rng, size):
    """Near ones, and some a thousand times as far away."""
    places = dense(rng, size)
    for number in range(0, size, 4):
        places[number][rng.randrange(2)] += rng.choice((-1, 1)) * rng.randrange(4000, 9000)
    return places


def huge(rng, size):
    """Maps of two or four distant corners: the squares are not exact as floats."""
    base = 10 ** rng.choice((8, 9))
    return [[x + rng.choice((-base, base)), y - rng.choice((0, base)), name] for x, y, name in dense(rng, size)]


if __name__ == "__main__":
    main()
