"""Print the cases of the test (BENCH_PART=edge) or of the benchmark, one a line; worker.c has their words.

Everything follows from BENCH_SEED.
"""

import base64
import os
import random

PART = os.environ.get("BENCH_PART", "speed")
RANDOM = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {PART}")

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ODD = [
    b"=",
    b"==",
    b"===",
    b"-",
    b"_",
    b"\x00",
    b"\x0b",
    b"\x0c",
    b"\xff",
    b"\xc3",
    b".",
    b" ",
    b"\n",
    b"\r\n",
    b"\t",
    b"A",
    b"//",
]


def some_bytes(size: int) -> bytes:
    """Return bytes of all values, or of few."""
    return RANDOM.randbytes(size) if RANDOM.random() < 0.7 else bytes(RANDOM.choices(b"\x00\xff\x10a", k=size))


def lines(text: bytes, width: int, end: bytes) -> bytes:
    """Cut a text into lines; width 0 leaves it whole."""
    return b"".join(text[i : i + width] + end for i in range(0, len(text), width)) if width else text


def valid(size: int) -> bytes:
    """Return a text that is base64 of so many bytes, with blanks and line ends in it."""
    text = lines(
        base64.b64encode(some_bytes(size)),
        RANDOM.choice([0, 0, 1, 3, 4, 5, 64, 76]),
        RANDOM.choice([b"\n", b"\r\n", b" "]),
    )
    if RANDOM.random() < 0.4:
        for _ in range(RANDOM.randint(1, 4)):
            place = RANDOM.randint(0, len(text))
            text = text[:place] + RANDOM.choice([b" ", b"\t", b"\r", b"\n", b"   "]) + text[place:]
    return text


def damaged(text: bytes) -> bytes:
    """Return a text with one or two bytes changed, added or left out, which may be base64 all the same."""
    for _ in range(RANDOM.choice([1, 1, 2])):
        place = RANDOM.choice([RANDOM.randint(0, len(text)), max(0, len(text) - RANDOM.randint(0, 4))])
        other = RANDOM.choice([RANDOM.choice(ODD), bytes([RANDOM.choice(ALPHABET)]), RANDOM.randbytes(1)])
        text = text[:place] + RANDOM.choice([other, b""]) + text[place + RANDOM.choice([0, 1]) :]
    return text


def case(pieces: list[bytes], calls: str) -> str:
    """Write the caller's bytes and what is done with them."""
    memory = [f"{RANDOM.choice(['end', 'end', 'start'])} {i} {piece.hex() or '-'}" for i, piece in enumerate(pieces)]
    return f"{' '.join(memory)} go{calls}"


def width() -> int:
    """Return a width of lines."""
    return RANDOM.choice(
        [0, 0, 1, 2, 3, 4, 5, 7, 8, 60, 64, 76, RANDOM.randint(1, 100), 1 << 40, (1 << 16) + 4, (1 << 32) + 3]
    )


def changed_between_calls(size: int) -> str:
    """Encode or decode the same memory again and again, after a byte of it or of a result changed."""
    plain, text = some_bytes(RANDOM.randint(1, size)), valid(RANDOM.randint(1, size))
    calls = f" encode 2 0 {width()} decode 3 1"
    for result in range(4, 12, 2):
        change = RANDOM.choice([bytes([RANDOM.choice(ALPHABET)]), b"=", b" "])
        calls += f" write 0 {RANDOM.randrange(len(plain))} {RANDOM.randbytes(1).hex()}"
        calls += f" write 1 {RANDOM.randrange(len(text))} {change.hex()}"
        calls += f" encode {result} 0 {width()} decode {result + 1} 1"
        if RANDOM.random() < 0.3:
            calls += f" write {result} 0 21 decode 20 {result} free {result}"
    return case([plain, text], calls)


def edge_cases():
    """Yield small cases of everything that the README and the header say."""
    yield case([b"", b" \n\t\r "], " alphabet encode 2 0 0 encode 3 0 76 decode 4 0 decode 5 1 free 2 encode 6 0 1")
    for size in range(70):
        plain = some_bytes(size)
        yield case(
            [plain, valid(size)],
            f" encode 2 0 0 encode 3 0 {size % 9} encode 4 0 {width()} decode 5 1 decode 6 2 decode 7 4",
        )
    for size in (95, 96, 97, 190, 191, 192, 300, 1000, 3000):
        yield case([some_bytes(size), valid(size)], f" encode 2 0 {width()} decode 3 1 decode 4 2")
    for first in range(256):  # every byte in a text, where a letter, padding or nothing may be
        texts = [
            b"Zm" + bytes([first]) + b"v",
            b"Zm9v" + bytes([first]),
            b"Zg=" + bytes([first]),
            b"Zg==" + bytes([first]),
        ]
        yield case(texts, "".join(f" decode {i + 4} {i}" for i in range(4)))
    letters = [bytes([RANDOM.choice(ALPHABET)]) for _ in range(20)]
    for letter in letters:  # bits behind the last byte
        for last in RANDOM.sample(ALPHABET, 6):
            texts = [
                letter + bytes([last]) + b"==",
                letter * 2 + bytes([last]) + b"=",
                letter + bytes([last]),
                letter * 3,
            ]
            yield case(texts, "".join(f" decode {i + 4} {i}" for i in range(4)))
    for text in (
        b"=",
        b"==",
        b"====",
        b"Z",
        b"Z=",
        b"Z==",
        b"Z===",
        b"Zg=",
        b"Zg===",
        b"Zg= =",
        b"Z g = = ",
        b"Zm8=Zm8=",
        b"Zg=a",
        b"Zm9v=",
    ):
        yield case([text, damaged(text), text * 2], " decode 3 0 decode 4 1 decode 5 2")
    for _ in range(250):
        texts = [damaged(valid(RANDOM.choice([1, 2, 3, 4, 5, 6, RANDOM.randint(1, 90)]))) for _ in range(4)]
        yield case(texts, "".join(f" decode {i + 4} {i}" for i in range(4)))
    for size in (1, 3, 4, 16, 60):
        for _ in range(10):
            yield changed_between_calls(size)


def speed_cases():
    """Yield large bytes and texts, good ones and bad ones, and small ones."""
    cases = []
    for size in (100000, 75000, 50000, 20000):
        plain = RANDOM.randbytes(RANDOM.randint(size * 8 // 10, size))
        other = RANDOM.randbytes(RANDOM.randint(size * 8 // 10, size))
        text = lines(base64.b64encode(other), RANDOM.choice([0, 0, 60, 64, 76, 77]), RANDOM.choice([b"\n", b"\r\n"]))
        calls = f" encode 2 0 {RANDOM.choice([0, 60, 64, 76, RANDOM.randint(1, 99)])} decode 3 1"
        place, change = RANDOM.randrange(len(text) * 8 // 10, len(text) - 3), RANDOM.choice([*ODD, b"Q"])
        if size < 100000:
            calls += (
                f" write 0 {RANDOM.randrange(len(plain))} 5a write 1 {place} {change.hex()} encode 4 0 0 decode 5 1"
            )
        cases.append(case([plain, text], calls))
    for size in (60000, 30000):  # what was encoded is decoded
        width = RANDOM.choice([0, 5, 76])
        cases.append(case([some_bytes(RANDOM.randint(size * 8 // 10, size))], f" encode 1 0 {width} decode 2 1"))
    for _ in range(6):
        cases.append(changed_between_calls(RANDOM.choice([10, 200])))
        texts = [damaged(valid(RANDOM.randint(1, 600))) for _ in range(4)]
        cases.append(case(texts, "".join(f" decode {i + 4} {i}" for i in range(4))))
    RANDOM.shuffle(cases)
    yield from cases


for line in edge_cases() if PART == "edge" else speed_cases():
    print(line)
