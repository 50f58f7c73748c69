"""Prints what bench_worker.py is to do, one case a line, made from $BENCH_SEED; with BENCH_PART=edge small, odd cases.

A case is a list of operations, each a list of a name and its arguments; bench_worker.py says what they do. A key that
JSON has not is a list: ["float", 1], ["tuple", 1, "a"], ["bytes", "a"].
"""

import os
import random
from json import dumps

QUESTIONS = ("get", "get", "get_default", "peek", "peek_default", "in", "put", "put", "put", "remove")


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{os.environ.get('BENCH_SEED', '0')}-{part}")
    for case in edge_cases(rng, 240) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Replays of traces and mixed operations on caches of several sizes, and small cases in between."""
    cases = edge_cases(rng, 10)
    for capacity, keys, length in ((20, 60, 9000), (90, 400, 9000), (300, 1200, 8000), (700, 3000, 7000)):
        trace = [f"/page/{min(rng.randrange(keys * 3), rng.randrange(keys))}" for _ in range(length)]
        cases.append([["replay", rng.choice(("list", "iterator")), capacity + rng.randrange(9), trace]])
    for capacity, keys, length in ((150, 300, 7000), (500, 900, 6000)):
        keys = rng.choice((some_strings, some_integers))(rng, keys) + strange_keys(rng, 40)
        cases.append(operations(rng, capacity, keys, length))
    # Nothing is ever found, or always the same.
    cases.append([["replay", "list", 400, list(range(3000))], ["replay", "list", 50, [rng.randrange(9)] * 400]])
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Caches of a few entries, with all kinds of keys, of which some are equal without being the same."""
    cases = [
        [["new", capacity, None], ["items"], ["get", 1], ["remove", 1], ["put", 1, 2], ["resize", 0], ["items"]]
        for capacity in (-3, 0, 1, 2)
    ]
    cases.append([["replay", "list", capacity, []] for capacity in (0, 1, 5)])
    while len(cases) < count:
        keys = rng.choice((some_strings, some_integers, strange_keys, strange_keys))(rng, rng.choice((2, 3, 5, 9, 30)))
        length = rng.choice((6, 15, 30, 60))
        cases.append(operations(rng, rng.choice((1, 1, 2, 3, 4, 7, 20)), keys, length))
        if rng.random() < 0.3:
            trace = rng.choices(keys, k=rng.choice((1, 5, 40)))
            cases[-1].append(["replay", rng.choice(("list", "iterator")), rng.choice((0, 1, 2, 3, 8)), trace])
    rng.shuffle(cases)
    return cases[:count]


def operations(rng, capacity, keys, length):
    """Operations on one cache, the first of which makes it."""
    listener = rng.choice((None, "tell", "tell", "tell", "look", "fail", "second", "use", "miss"))
    made = [["new", capacity, listener]]
    for number in range(length):
        name, key = rng.choice(QUESTIONS), rng.choice(keys)
        if name == "remove" and (key is None or isinstance(key, list)):
            name = "remove_odd"
        made.append([name, key, value(rng, number)] if name == "put" else [name, key])
        if rng.random() < 0.15:
            made.append(
                rng.choice(
                    (
                        ["length"],
                        ["items"] if rng.random() < 12 / (length + 1) else ["length"],
                        ["resize", max(rng.choice((0, 1, capacity)), capacity + rng.randrange(-3, 3))],
                        ["resize", rng.randrange(1, 4) if length < 100 else capacity],
                        ["set_capacity", capacity + rng.randrange(-1, 2) or 1],
                        ["change_value", key],
                        ["change_last"],
                        ["listen", rng.choice(("tell", "look", None))] if rng.random() < 0.2 else ["capacity"],
                        ["spoil_items"] if length < 100 else ["length"],
                    )
                )
            )
    made.append(["items"])
    return made


def value(rng, number):
    return rng.choice((number, number, f"value {number}", None, False, [number]))


def some_strings(rng, count):
    return [f"/{rng.randrange(16**6):x}" for _ in range(count)]


def some_integers(rng, count):
    return rng.sample(range(-2 * count, 2 * count), count)


def strange_keys(rng, count):
    """Keys of many types; 1, 1.0 and True are equal, and so are others."""
    keys = []
    while len(keys) < count:
        number = rng.randrange(-2, 3)
        keys += rng.choice(
            (
                [number, ["float", number]],
                [bool(number), int(bool(number))],
                [["tuple", number, "a"], ["tuple", ["float", number], "a"]],
                [["tuple"], ""],
                [None, "None"],
                [str(number), ["bytes", str(number)]],
                [10**20 + number, ["float", 10**20]],
                ["é", "e\u0301", "\U0001f600"],
            )
        )
    rng.shuffle(keys)
    return keys[:count]


if __name__ == "__main__":
    main()
