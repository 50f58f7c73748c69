"""Print the cases of the test (BENCH_PART=edge) or of the benchmark, one a line; worker.c has their words.

Everything follows from BENCH_SEED.
"""

from __future__ import annotations

import math
import os
import random
import struct
from collections.abc import Iterator

PART = os.environ.get("BENCH_PART", "speed")
RANDOM = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {PART}")

EDGE_VALUES = [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.2e-308, 1e-200, 1e16, -1e16, 1e308, -1e308, math.inf, -math.inf]


def value(kind: str) -> float:
    """Return a `plain` value, a `whole` number, one of all `sizes`, a `tiny` one, mostly one of the `zeros`, an `edge`."""
    if kind == "edge":
        return RANDOM.choice([*EDGE_VALUES, math.nan])
    if kind == "zeros":  # with an infinity now and then: 0 times infinity is not 0
        return RANDOM.choices([0.0, -0.0, RANDOM.uniform(-2, 2), RANDOM.choice(EDGE_VALUES)], [70, 10, 18, 2])[0]
    if kind == "signs":
        return RANDOM.choice([0.0, -0.0, 1.0, -1.0])
    if kind == "whole":
        return float(RANDOM.randint(-9, 9))
    if kind == "sizes":
        return RANDOM.uniform(-1, 1) * 10.0 ** RANDOM.randint(-20, 20)
    if kind == "tiny":
        return RANDOM.uniform(-1, 1) * 2.0 ** RANDOM.randint(-540, -500)
    return RANDOM.uniform(-1, 1)


def digits(values: list[float]) -> str:
    """Write doubles as the worker reads them."""
    return struct.pack(f">{len(values)}d", *values).hex() or "-"


def matrix(slot: int, rows: int, columns: int, kind: str) -> str:
    """Write a matrix in memory of a random kind."""
    memory = RANDOM.choice(["new", "end", "start"])
    return f"{memory} {slot} {rows} {columns} {digits([value(kind) for _ in range(rows * columns)])}"


def product(rows: int, inner: int, columns: int, kind: str) -> str:
    """Multiply two matrices once."""
    return f"{matrix(0, rows, inner, kind)} {matrix(1, inner, columns, kind)} go multiply 2 0 1"


def changed_between_calls(size: int) -> str:
    """Multiply the same two matrices again and again, after one value or the shape changed, or a result did."""
    rows, inner, columns = (RANDOM.randint(1, size) for _ in range(3))
    case = f"{matrix(0, rows, inner, 'sizes')} {matrix(1, inner, columns, 'sizes')} go multiply 2 0 1"
    for result in range(3, 9):
        target, count = RANDOM.choice([(0, rows * inner), (1, inner * columns), (2, rows * columns)])
        case += f" set {target} {RANDOM.randrange(count)} {digits([value('sizes')])} multiply {result} 0 1"
        if RANDOM.random() < 0.3:
            case += f" free {result}"
    if RANDOM.random() < 0.5:
        case += f" shape 0 {rows * inner} 1 shape 1 1 {inner * columns} multiply 9 0 1"
    if RANDOM.random() < 0.5:  # a matrix in the place of another one that is freed
        case += " identity 10 3 set 10 1 4000000000000000 multiply 11 10 10 free 10 identity 10 3 multiply 12 10 10"
    return case


def powers(size: int, kind: str) -> str:
    """Raise a square matrix, and one that is perhaps not, to some powers."""
    case = f"{matrix(0, size, size, kind)} {matrix(1, size, size + RANDOM.randint(0, 1), kind)} go"
    for result, exponent in enumerate([0, 1, 2, 3, RANDOM.randint(4, 9)], 2):
        case += f" power {result} 0 {exponent}"
    return case + f" power 7 1 {RANDOM.randint(0, 3)} transpose 8 1 transpose 9 8 multiply 10 1 8 multiply 11 0 0"


def edge_cases() -> Iterator[str]:
    """Yield small cases of everything that the README and the header promise."""
    kinds = ["plain", "whole", "sizes", "tiny", "edge", "zeros", "signs"]
    for kind in kinds:
        shapes = [(0, 0, 0), (0, 3, 2), (2, 0, 3), (3, 2, 0), (1, 1, 1), (1, 7, 1), (5, 1, 4), (2, 2, 2)]
        for rows, inner, columns in shapes:
            yield product(rows, inner, columns, kind)
        for _ in range(12):
            yield product(RANDOM.randint(1, 17), RANDOM.randint(1, 17), RANDOM.randint(1, 17), kind)
        for size in (1, 2, 3, 6):
            yield powers(size, kind)
    for _ in range(12):  # shapes that do not fit, though the number of values may
        rows, inner, columns = RANDOM.randint(0, 6), RANDOM.randint(0, 6), RANDOM.randint(0, 6)
        other = RANDOM.choice([inner + 1, rows * inner, inner + 7])
        yield f"{matrix(0, rows, inner, 'plain')} {matrix(1, other, columns, 'plain')} go multiply 2 0 1 multiply 3 1 0"
    # No memory: 2^62 values.
    yield f"start 0 {1 << 31} 0 - start 1 0 {1 << 31} - go multiply 2 0 1"
    for _ in range(60):
        yield changed_between_calls(8)
    for size in (15, 16, 17, 31, 32, 33, 63, 64, 65):  # at the sizes that blocks and vectors have
        yield product(
            size, RANDOM.choice([3, size, size + 1]), RANDOM.choice([size - 1, size, 5]), RANDOM.choice(kinds)
        )
    for rows, inner, columns in ((1, 300, 1), (150, 1, 150), (1, 40, 200), (200, 40, 1), (90, 110, 70), (4, 1000, 3)):
        yield product(rows, inner, columns, "sizes")


def speed_cases() -> Iterator[str]:
    """Yield products of several shapes, most of them large, and some small ones."""
    cases = [product(1, 1, 1, "plain")]  # the shortest line comes first, while the worker starts
    for rows, inner, columns in ((400, 410, 390), (240, 250, 230), (60, 900, 140), (520, 90, 140), (150, 150, 150)):
        # Nothing of these is known before, not even the shape.
        sizes = [size + RANDOM.randint(-size // 12, size // 12) for size in (rows, inner, columns)]
        first, second = RANDOM.getrandbits(62), RANDOM.getrandbits(62)
        change = f"set 0 {RANDOM.randrange(sizes[0] * sizes[1])} {digits([value('sizes')])}"
        case = (
            f"random 0 {sizes[0]} {sizes[1]} {first} random 1 {sizes[1]} {sizes[2]} {second} go multiply 2 0 1 {change}"
        )
        if rows < 200 and rows * inner * columns < 6_000_000:
            case += " multiply 3 0 1"
        cases.append(case)
    for kind in ("zeros", "zeros", "tiny", "sizes", "signs"):
        cases.append(product(RANDOM.randint(20, 40), RANDOM.randint(20, 40), RANDOM.randint(20, 40), kind))
    for _ in range(4):
        cases.append(changed_between_calls(12))
    cases.append(powers(24, "plain"))
    RANDOM.shuffle(cases)
    yield from cases


for line in edge_cases() if PART == "edge" else speed_cases():
    print(line)
