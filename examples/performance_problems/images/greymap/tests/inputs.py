"""Print the cases of the test (BENCH_PART=edge) or of the benchmark, one a line; worker.c has their words.

Everything follows from BENCH_SEED.
"""

import os
import random

PART = os.environ.get("BENCH_PART", "speed")
RANDOM = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {PART}")

FILTERS = ["blur", "sharpen", "threshold"]
KINDS = ["noise", "photograph", "white", "black", "two", "dots", "steps", "bright"]


def photograph(size: int) -> bytes:
    """Return pixels that change slowly."""
    light, pixels = 128, bytearray()
    for noise in RANDOM.randbytes(size):
        light = min(max(light + noise % 61 - 30, 0), 255)
        pixels.append(light)
    return bytes(pixels)


def pixels(kind: str, size: int) -> bytes:
    """Return so many pixels of a kind of picture."""
    if kind == "photograph":
        return photograph(size)
    if kind in ("white", "black"):
        return bytes([255 if kind == "white" else 0]) * size
    if kind == "two":  # many means that end in a half
        return bytes(RANDOM.choices([RANDOM.randint(0, 255), RANDOM.randint(0, 255)], k=size))
    if kind == "dots":
        return bytes(RANDOM.choices([0, RANDOM.randint(1, 255)], [30, 1], k=size))
    if kind == "steps":
        return bytes((i * 7 // 3) % 256 for i in range(size))
    if kind == "bright":
        return bytes(RANDOM.choices([254, 255], k=size))
    return RANDOM.randbytes(size)


def image(slot: int, width: int, height: int, kind: str) -> str:
    """Write a picture in memory of a random kind."""
    memory = RANDOM.choice(["new", "end", "start"])
    return f"{memory} {slot} {width} {height} {pixels(kind, width * height).hex()}"


def filtered(width: int, height: int, radius: int, kind: str, names: list[str]) -> str:
    """Apply filters to a picture."""
    return f"{image(0, width, height, kind)} go" + "".join(f" {name} {i} 0 {radius}" for i, name in enumerate(names, 1))


def changed_between_calls(size: int) -> str:
    """Filter the same picture again and again, after a pixel, the shape or a result changed, and results as well."""
    width, height, radius = RANDOM.randint(1, size), RANDOM.randint(1, size), RANDOM.randint(0, 4)
    case = f"{image(0, width, height, RANDOM.choice(KINDS))} go {RANDOM.choice(FILTERS)} 1 0 {radius}"
    for result in range(2, 9):
        if RANDOM.random() < 0.2:
            width, height = height, width
            case += f" shape 0 {width} {height}"
        target = RANDOM.choice([0, 0, 0, 1])
        case += f" set {target} {RANDOM.randrange(width * height)} {RANDOM.randint(0, 255)}"
        if RANDOM.random() < 0.2:
            radius = RANDOM.randint(0, 6)
        case += f" {RANDOM.choice(FILTERS)} {result} {RANDOM.choice([0, 0, 0, result - 1])} {radius}"
    return case + " free 3 free 5 blur 3 0 1 blur 5 4 2"


def edge_cases():
    """Yield small cases of everything that the README and the header say."""
    for radius in (-1, -7, -(2**31)):
        yield filtered(3, 2, radius, "noise", FILTERS)
    for width, height in ((0, 3), (3, 0), (0, 0), (-1, 5), (5, -1), (-2, -2)):
        yield f"end 0 {width} {height} - go" + "".join(f" {name} {i} 0 {i - 1}" for i, name in enumerate(FILTERS, 1))
    for width, height in ((1, 1), (1, 2), (2, 1), (2, 2), (1, 9), (9, 1), (3, 3), (5, 4)):
        for radius in (0, 1, 2, 3, 4, 5, 8, 9, 10, 50):
            yield filtered(width, height, radius, RANDOM.choice(KINDS), FILTERS)
    for _ in range(160):
        yield filtered(
            RANDOM.randint(1, 24), RANDOM.randint(1, 24), RANDOM.randint(0, 9), RANDOM.choice(KINDS), FILTERS
        )
    for kind in KINDS:
        for width, height in ((15, 17), (16, 16), (33, 31), (7, 64), (65, 3)):
            yield filtered(width, height, RANDOM.randint(1, 6), kind, [RANDOM.choice(FILTERS)])
        yield filtered(RANDOM.randint(20, 40), RANDOM.randint(20, 40), RANDOM.randint(15, 45), kind, ["blur"])
    for width, height in ((257, 2), (2, 257), (300, 1), (1, 300)):
        yield filtered(width, height, RANDOM.choice([1, 20, 128, 256]), "bright", ["blur"])
    for radius in range(1, 10):  # an even number of pixels in the square, so that many means end in a half
        yield filtered(200, 2, radius, "noise", ["blur"])
        yield filtered(RANDOM.choice([2, 4, 6]), 100, radius, "noise", ["blur"])
    for radius in (24, 51, 53, 80, 93, 98):  # times 1 / (2 * radius + 1) is not the same as divided by it
        yield filtered(500, 2, radius, "noise", ["blur"])
    yield filtered(1, 1, RANDOM.randint(700, 900), "noise", ["blur"])
    yield filtered(2, 3, RANDOM.randint(300, 500), "noise", ["threshold"])
    for _ in range(60):
        yield changed_between_calls(9)


def speed_cases():
    """Yield large pictures with several filters and radii, and small ones."""
    cases = []
    for pixel_count, radius, name in (
        (380000, 8, "blur"),
        (250000, 11, "threshold"),
        (300000, 5, "sharpen"),
        (90000, 15, "blur"),
    ):
        width = RANDOM.randint(300, 900)
        kind = RANDOM.choice(["photograph", "photograph", "noise", "two", "dots"])
        cases.append(filtered(width, pixel_count // width, radius + RANDOM.randint(-1, 1), kind, [name]))
    width = RANDOM.randint(180, 300)  # the mean of a mean, after a change
    radius = RANDOM.randint(4, 6)
    case = f"{image(0, width, 60000 // width, 'photograph')} go blur 1 0 {radius} set 0 {RANDOM.randrange(50000)} 255"
    cases.append(f"{case} blur 2 1 {radius} sharpen 3 0 {radius} threshold 4 2 3")
    cases.append(filtered(RANDOM.randint(2000, 4000), RANDOM.randint(3, 6), RANDOM.randint(7, 12), "bright", ["blur"]))
    cases.append(
        filtered(RANDOM.randint(3, 6), RANDOM.randint(2000, 4000), RANDOM.randint(7, 12), "bright", ["sharpen"])
    )
    for _ in range(8):
        cases.append(
            filtered(RANDOM.randint(1, 60), RANDOM.randint(1, 60), RANDOM.randint(0, 9), RANDOM.choice(KINDS), FILTERS)
        )
        cases.append(changed_between_calls(12))
    RANDOM.shuffle(cases)
    yield from cases


for line in edge_cases() if PART == "edge" else speed_cases():
    print(line)
