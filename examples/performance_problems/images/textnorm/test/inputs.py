"""Print the cases of the test (BENCH_PART=edge) or of the benchmark, one a line; worker.c has their words.

Everything follows from BENCH_SEED.
"""

import os
import random

PART = os.environ.get("BENCH_PART", "speed")
RANDOM = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {PART}")

BYTES = [bytes([value]) for value in range(1, 256)]
PIECES = {
    "letter": [b"  ", b" ", b"\t", b"\n", b"Dear ", b"ABC", b"x7", b", ", "ü".encode(), b"--", b"Q", b"end. "],
    "blank": [b" ", b"\t", b"\n", b"\r", b"a", b" \r\n"],
    "bytes": BYTES,
    "limits": [bytes([value]) for value in b" \t\n\r\x08\x0b\x0c\x0e\x1f!-/09:@AZ[`az{\x7f\x80\x9f\xa0\xc3\xff"],
    "words": [b"Hello", b"World", b"-", b"--", b" ", b"%", "é".encode(), b"42"],
    "solid": [b"abc", b"xyz0", b"q"],
    "dashes": [b"-", b"- ", b"a", "ß".encode()],
}
SETS = [
    b"",
    b"-",
    b"\t-,",
    b"lo",
    b"aeiouAEIOU",
    b" \t\r\n",
    b"\xc3",
    b"\x80\xff",
    b"zz-z",
    b"\x7f\x80",
    b"".join(BYTES),
]


def text(kind: str, size: int) -> bytes:
    """Return a string of about this many bytes."""
    pieces, result = PIECES[kind], bytearray()
    while len(result) < size:
        result += RANDOM.choice(pieces)
    return bytes(result[:size])


def unwanted() -> bytes:
    """Return a set of bytes for `strip`."""
    return (
        RANDOM.choice(SETS) if RANDOM.random() < 0.6 else bytes(RANDOM.choices(range(1, 256), k=RANDOM.randint(1, 9)))
    )


def call(name: str, string: int, place: int = 0) -> str:
    """Write a call."""
    return f" {name} {string} {place}" + (f" {unwanted().hex() or '-'}" if name == "strip" else "")


def case(strings: list[bytes], calls: str) -> str:
    """Write strings and what is done with them."""
    memory = [f"{RANDOM.choice(['end', 'end', 'start'])} {i} {string.hex() or '-'}" for i, string in enumerate(strings)]
    return f"{' '.join(memory)} go{calls}"


def anything(kind: str, size: int) -> str:
    """Write calls on two strings one after the other, on parts of them, and on new bytes in the same memory."""
    strings = [text(kind, RANDOM.randint(0, size)) for _ in range(2)]
    calls = ""
    for _ in range(RANDOM.randint(2, 7)):
        string = RANDOM.randrange(2)
        if RANDOM.random() < 0.35:
            other = text(RANDOM.choice(list(PIECES)), RANDOM.randint(0, len(strings[string])))
            calls += f" write {string} {other.hex() or '-'}"
        place = RANDOM.choice([0, 0, 0, 1, RANDOM.randint(0, size)])
        calls += call(RANDOM.choice(["fold", "squeeze", "strip", "slug"]), string, place)
    return case(strings, calls)


def edge_cases():
    """Yield small cases of everything that the README says."""
    fixed = [
        b"",
        b" ",
        b"  ",
        b"\n",
        b"a",
        b"-",
        b"\xff",
        b" a",
        b"a ",
        b" \t\r\n ",
        b"a b",
        b"a  b",
        b"A\x0b B",
        b"---",
        b"\xc3\xa9a",
    ]
    for string in fixed:
        yield case([string] * 4, call("fold", 0) + call("squeeze", 1) + call("strip", 2) + call("slug", 3))
    for value in range(1, 256):  # every byte alone, at an end, and within a word
        byte = bytes([value])
        around = b"a" + byte + b"b" + byte * 2 + b" " + byte + b" c" + byte
        name = ["fold", "squeeze", "slug"][value % 3]
        strip = f" strip 3 0 {byte.hex()} strip 2 0 {bytes([RANDOM.randint(1, 255), value]).hex()}"
        yield case([around, around, around, around], call(name, 0) + call("slug", 1) + strip)
    for kind in PIECES:
        for size in (3, 8, 9, 16, 40, 70, 300):
            for _ in range(3):
                yield anything(kind, size)
        for name in ("fold", "squeeze", "strip", "slug"):
            for size in (15, 16, 17, 31, 33, 64, 127, 700):  # where words of a machine and vectors end
                yield case([text(kind, size)], call(name, 0))
    yield case([b"x" * 300, b" " * 300, b"\xe9" * 300, b"Z" * 300], "".join(call("slug", i) for i in range(4)))
    for kind in ("letter", "limits"):
        yield case([text(kind, 3000)] * 3, call("squeeze", 0) + call("strip", 1) + call("slug", 2))


def speed_cases():
    """Yield some long strings of several kinds, and short ones."""
    cases = []
    sizes = [
        ("letter", 90000),
        ("blank", 40000),
        ("bytes", 60000),
        ("words", 50000),
        ("dashes", 30000),
        ("limits", 8000),
    ]
    for kind, size in sizes:
        strings = [text(kind, RANDOM.randint(size * 8 // 10, size)) for _ in range(3)]
        names = ["squeeze", "strip", "slug"]
        RANDOM.shuffle(names)
        calls = "".join(call(name, i) for i, name in enumerate(names))
        again = RANDOM.randrange(3)
        calls += f" write {again} {text('letter', 3000).hex()}" + call(
            RANDOM.choice(names), again, RANDOM.randint(0, 9)
        )
        cases.append(case(strings, calls))
    cases.append(case([text("bytes", RANDOM.randint(80000, 100000))], call("fold", 0)))
    solid = [text("solid", RANDOM.randint(50000, 70000)) for _ in range(3)]
    cases.append(case(solid, call("squeeze", 0) + call("slug", 1) + call("strip", 2)))
    cases += [anything(RANDOM.choice(list(PIECES)), RANDOM.choice([20, 100, 500])) for _ in range(8)]
    RANDOM.shuffle(cases)
    yield from cases


for line in edge_cases() if PART == "edge" else speed_cases():
    print(line)
