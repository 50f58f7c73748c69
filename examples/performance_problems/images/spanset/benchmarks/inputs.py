"""Prints the cases of the benchmark, one a line, made from $BENCH_SEED alone; $BENCH_PART is `speed` or `edge`.

A case is a list of spans and the calls to make with it, in order:

    ["merge", "list"]      also "tuple", "iterator", "set"; "total" likewise
    ["gaps", 0, 100]       within that span
    ["replace", 3, 7, 9]   changes the list in place; so do "append", "delete" and "reverse"
    ["spoil"]              changes the list that the last call returned
"""

import os
import random
from json import dumps


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {part}")
    cases = edge_cases(rng, 300) if part == "edge" else speed_cases(rng)
    for case in cases:
        print(dumps(case))


def speed_cases(rng):
    """Large lists of every kind, some of them wrong or changed between calls, and small ones in between."""
    cases = edge_cases(rng, 12)
    for kind in KINDS:
        cases.append({"spans": kind(rng, rng.randrange(700, 800)), "calls": [["merge", "list"]]})
    for kind in rng.sample(KINDS, 3):
        spans = kind(rng, rng.randrange(600, 640))
        start = rng.randrange(-5000, 5000)
        change = ["replace", rng.randrange(len(spans)), start, start + 40]
        cases.append({"spans": spans, "calls": [["merge", "list"], change, ["gaps", -3000, 60_000]]})
    cases.append({"spans": with_wrong_ones(rng, apart(rng, 800), 700), "calls": [["merge", "list"]]})
    cases.append({"spans": apart(rng, 2000), "calls": [["merge", "iterator"]]})
    cases.append({"spans": bookings(rng, 2000), "calls": [["total", "tuple"]]})
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Small lists: empty, one span, equal ones, touching ones, wrong ones, changed between calls."""
    cases = [{"spans": [], "calls": [["merge", how], ["total", how], ["gaps", -4, 9]]} for how in HOW]
    while len(cases) < count:
        size = rng.choice((1, 2, 3, 4, 5, 6, 8, 12, 30, 90))
        if len(cases) % 60 == 59:
            size = 200
        spans = rng.choice((*KINDS, *SMALL_KINDS))(rng, size)
        if rng.random() < 0.15:
            spans = with_wrong_ones(rng, spans, 0)
        cases.append({"spans": spans, "calls": calls(rng, spans)})
    rng.shuffle(cases)
    return cases


def with_wrong_ones(rng, spans, first):
    """The spans, of which one to three, none before the `first`, stop before they start."""
    spans = list(spans)
    for where in rng.sample(range(first, len(spans)), min(len(spans) - first, rng.randrange(1, 4))):
        spans[where] = [spans[where][0], spans[where][0] - rng.randrange(1, 9)]
    return spans


def calls(rng, spans):
    """Some calls, with changes between them."""
    made = [question(rng, spans)]
    length = len(spans)
    for _ in range(rng.randrange(1, 5)):
        at = rng.choice(spans)[0] + rng.randrange(-4, 5)
        stop = at + rng.randrange(-1, 9)
        kind = rng.randrange(6)
        if kind == 0 and length:
            made.append(["replace", rng.randrange(length), at, stop])
        elif kind == 1:
            made.append(["append", at, stop])
            length += 1
        elif kind == 2 and length:
            made.append(["delete", rng.randrange(length)])
            length -= 1
        elif kind == 3:
            made.append(["reverse"])
        elif kind == 4:
            made.append(["spoil"])
        made.append(made[0] if rng.random() < 0.5 else question(rng, spans))
    return made


def question(rng, spans):
    kind = rng.choice(("merge", "merge", "total", "gaps"))
    if kind == "gaps":
        start = rng.choice(spans)[rng.randrange(2)] + rng.randrange(-9, 4)
        return [kind, start, start + rng.choice((-3, 0, 1, 7, 30, 1000))]
    return [kind, rng.choice(HOW)]


def bookings(rng, count):
    """Spans in no order, some of which overlap or touch."""
    spans = []
    for _ in range(count):
        start = rng.randrange(count * 60)
        spans.append([start, start + rng.randrange(60)])
        if len(spans) < count and rng.random() < 0.2:
            spans.append([spans[-1][1], spans[-1][1] + rng.randrange(4)])
    return spans[:count]


def apart(rng, count):
    """Spans that are not joined, in no order."""
    starts = rng.sample(range(-count * 4, count * 4), count)
    return [[10 * start, 10 * start + rng.randrange(1, 10)] for start in starts]


def ascending(rng, count):
    return sorted(bookings(rng, count))


def descending(rng, count):
    return sorted(apart(rng, count), reverse=True)


def stacked(rng, count):
    """Many spans within others, and equal ones."""
    spans = bookings(rng, count)
    for where in range(0, count, 3):
        start, stop = spans[rng.randrange(count)]
        spans[where] = [start + rng.randrange(2), stop] if stop > start else [start, stop]
    for _ in range(count // 50 + 1):
        start = rng.randrange(count * 60)
        spans[rng.randrange(count)] = [start, start + rng.randrange(600)]
    return spans


def dense(rng, count):
    """Few integers, so that nearly everything touches; empty spans, too."""
    width = max(4, count)
    spans = []
    for _ in range(count):
        start = rng.randrange(-width, width)
        spans.append([start, start + rng.choice((0, 0, 1, 1, 2, 3, 7))])
    return spans


def huge(rng, count):
    """Integers that fit into no machine word and no float."""
    base = 10 ** rng.randrange(16, 40) * rng.choice((-1, 1))
    return [[base + start, base + stop] for start, stop in dense(rng, count)]


def same(rng, count):
    start = rng.randrange(-9, 9)
    return [[start, start + rng.randrange(3)]] * count


HOW = ("list", "tuple", "iterator", "set")
KINDS = (bookings, apart, ascending, descending, stacked)
SMALL_KINDS = (dense, dense, dense, huge, same)


if __name__ == "__main__":
    main()
