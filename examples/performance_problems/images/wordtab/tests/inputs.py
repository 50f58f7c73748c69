"""Print the cases of the test (BENCH_PART=edge) or of the benchmark, one a line; worker.c has their words.

Everything follows from BENCH_SEED.
"""

import os
import random
import string
import zlib

PART = os.environ.get("BENCH_PART", "speed")
RANDOM = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {PART}")

LETTERS = string.ascii_lowercase.encode()
LARGE = [2**62, -(2**62), 2**31, -(2**31), 2**31 - 1, 2**32, 2**32 + 1, 1, 0, -1]


def word(least: int, most: int, letters: bytes = LETTERS) -> bytes:
    """Return a random key."""
    return bytes(RANDOM.choices(letters, k=RANDOM.randint(least, most)))


def any_bytes(size: int) -> bytes:
    """Return a key of bytes other than NUL."""
    return bytes(RANDOM.choices(range(1, 256), k=size))


def similar(size: int) -> list[bytes]:
    """Return keys that differ at one place only, in their order, or in their length."""
    base = any_bytes(size) if RANDOM.random() < 0.5 else word(size, size)
    keys = {base, base[:-1], base + b"a", base[::-1], base[1:] + base[:1], base + base}
    for _ in range(12):
        place = RANDOM.randrange(size)
        keys.add(base[:place] + any_bytes(1) + base[place + 1 :])
        other = bytearray(base)
        other[place], other[place - 1] = other[place - 1], other[place]
        keys.add(bytes(other))
    keys |= {base[: size // 2] + b"\x01" + base[size // 2 + 1 :], base[:-1] + b"\xff", b"\x80" + base[1:]}
    return RANDOM.sample(sorted(keys), len(keys))


def polynomial(pairs: int, factor: int) -> list[bytes]:
    """Return keys of one length with the same hash, where a byte counts `factor` times as much as the next."""
    low = [bytes([97 + RANDOM.randint(0, 9), 40 + factor + RANDOM.randint(0, 9)]) for _ in range(pairs)]
    keys = [b""]
    for pair in low:
        other = bytes([pair[0] + 1, pair[1] - factor])
        keys = [key + end for key in keys for end in (pair, other)]
    return keys


def crc_32(before: int, byte: int) -> int:
    """Return the CRC-32 of a key with one more byte."""
    return zlib.crc32(bytes([byte]), before)


def fnv_32(before: int, byte: int) -> int:
    """Return the FNV-1a of 32 bits of a key with one more byte."""
    return (before ^ byte) * 16777619 & 0xFFFFFFFF


def lower_fnv_64(before: int, byte: int) -> int:
    """Return the lower half of the FNV-1a of 64 bits of a key with one more byte."""
    return (before ^ byte) * 0x1B3 & 0xFFFFFFFF


FNV_64 = [
    (b"7mohtcOFVz", b"c1E51sSEyx"),
    (b"6a5x-VbtXk", b"f_2k7GG-4v"),
    (b"8yn0iYCKYHlIj4-BwPqk", b"GReLUrM4wMqfg9yzV3KQ"),
    (b"gMPflVXtwGDXbIhP73TX", b"LtHf1prlU1bCeYZEdqWf"),
]
"""Keys with the same FNV-1a of 64 bits."""


def thue_morse() -> list[bytes]:
    """Return two long keys with the same hash modulo 2^64, whatever odd factor a byte has over the next."""
    one, other = RANDOM.sample(LETTERS, 2)
    bits = [number.bit_count() % 2 for number in range(2048)]
    return [bytes(other if bit else one for bit in bits), bytes(one if bit else other for bit in bits)]


def collisions() -> list[bytes]:
    """Return keys that differ, and that common hashes do not tell apart."""
    keys = [key for factor in (31, 33, 37, 65, 131) for key in polynomial(3, factor)] + thue_morse()
    end = word(0, 5)
    keys += [key + end for pair in FNV_64 for key in pair]
    for step, first in ((crc_32, 0), (fnv_32, 2166136261), (lower_fnv_64, 0x84222325)):
        seen: dict[int, bytes] = {}
        for _ in range(6000):  # 156,000 keys have about three collisions in 32 bits
            start = word(4, 6)
            value = first
            for byte in start:
                value = step(value, byte)
            for byte in LETTERS:
                key = start + bytes([byte])
                other = seen.setdefault(step(value, byte), key)
                if other != key:
                    keys += [key, other]
    return list(dict.fromkeys(keys))


def key_text(key: bytes) -> str:
    """Write a key."""
    return key.hex() or "-"


def use(keys: list[bytes], steps: int, table: int = 0) -> str:
    """Count, get and remove keys in some order."""
    calls = []
    for _ in range(steps):
        key = key_text(RANDOM.choice(keys))
        name = RANDOM.choices(["count", "get", "remove", "size", "rows"], [50, 20, 20, 3, 1])[0]
        amount = f" {RANDOM.randint(-3, 9)}" if name == "count" else ""
        calls.append(f" {name} {table}" + (f" {key}{amount}" if name in ("count", "get", "remove") else ""))
    return "".join(calls)


def whole_table(keys: list[bytes], steps: int) -> str:
    """Use one table and show everything that is in it."""
    return f"go new 0{use(keys, steps)} size 0 all 0 " + " ".join(f"get 0 {key_text(key)}" for key in keys)


def large_counts() -> str:
    """Write counts far apart, and equal ones."""
    calls = "".join(f" count 0 {key_text(word(0, 3))} {RANDOM.choice(LARGE) // 4}" for _ in range(20))
    keys = [b"z" + word(1, 6) for _ in range(8)]
    calls += "".join(f" count 0 {key_text(key)} {amount}" for key, amount in zip(keys, LARGE, strict=False))
    return f"go new 0{calls} rows 0 count 0 {key_text(keys[0])} {2**61} count 0 {key_text(keys[1])} {-(2**61)} all 0"


def rows_that_stay() -> str:
    """Ask for rows, then count other keys and others' tables; the rows' keys stay."""
    first, others = [word(0, 9) for _ in range(20)], [b"Q" + word(1, 9) for _ in range(RANDOM.choice([5, 300, 1000]))]
    calls = "".join(f" count 0 {key_text(key)} {RANDOM.randint(1, 3)}" for key in first) + " all 0 new 1"
    calls += "".join(f" count {RANDOM.choice([0, 0, 1])} {key_text(key)} 1" for key in others)
    calls += "".join(f" remove 0 {key_text(key)}" for key in others[::2]) + " drop 1 size 0 all 0"
    return f"go new 0{calls}"


def table_after_table(keys: list[bytes]) -> str:
    """Begin and end tables, which have nothing of each other."""
    calls, key = "", key_text(keys[0])
    for _ in range(4):
        table = RANDOM.randrange(3)
        calls += f" new {table}{use(keys, 25, table)} size {table} rows {table} drop {table}"
    return f"go new 5 new 6 count 5 {key} 7{calls} get 5 {key} size 6 get 6 {key} all 5"


def some_text(words: int, vocabulary: list[bytes]) -> bytes:
    """Return a text of words of a vocabulary, its first ones more often."""
    ends = [b" ", b" ", b" ", b"\n", b", ", b". ", b"-", b"'", "é".encode(), b"\x00"]
    text = bytearray()
    for _ in range(words):
        index = min(RANDOM.randrange(len(vocabulary)), RANDOM.randrange(len(vocabulary)))
        text += vocabulary[index].title() if RANDOM.random() < 0.2 else vocabulary[index]
        text += RANDOM.choice(ends)
    return bytes(text if RANDOM.random() < 0.5 else text.rstrip())


def counted(size: int, different: int) -> str:
    """Count the words of a text twice, with other calls between."""
    vocabulary = [word(1, 9, LETTERS + string.digits.encode()) for _ in range(different)] + [word(60, 70)]
    text = some_text(size, vocabulary)
    calls = " words 0 0 size 0 rows 0" + use(vocabulary[:40], 15) + " words 0 0 all 0"
    return f"text 0 {key_text(text)} go new 0{calls}"


def edge_cases():
    """Yield small cases of everything that the README and the header say."""
    yield "go new 0 size 0 rows 0 get 0 - get 0 61 remove 0 - remove 0 61 drop 0"
    yield "go new 0 count 0 - 3 count 0 - 2 rows 0 remove 0 - get 0 - size 0 rows 0 count 0 - 0 size 0 all 0"
    for _ in range(40):
        yield whole_table([word(0, 3, b"ab") for _ in range(10)], 40)
    for size in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 200):
        for _ in range(4):
            yield whole_table(similar(size), 60)
    yield whole_table([bytes([value]) for value in range(1, 256)] + [b""], 500)
    yield whole_table([any_bytes(RANDOM.choice([1, 5, 4000, 16000])) for _ in range(6)], 12)
    for _ in range(20):
        yield large_counts()
        yield table_after_table([word(0, 4, b"abc") for _ in range(12)])
        yield counted(RANDOM.randint(0, 40), 12)
    for _ in range(6):
        yield rows_that_stay()
    keys = collisions()
    calls = "".join(f" count 0 {key_text(key)} {amount}" for amount, key in enumerate(keys, 1))
    yield (
        f"go new 0{calls}{calls} rows 0" + "".join(f" remove 0 {key_text(key)}" for key in keys[::2]) + " size 0 all 0"
    )
    for count in (63, 64, 65, 127, 129, 700, 3000):  # a table that grows, and one that is emptied again
        keys = list(dict.fromkeys(word(2, 8) for _ in range(count)))
        removed = "".join(f" remove 0 {key_text(key)}" for key in RANDOM.sample(keys, len(keys)))
        yield f"go new 0{use(keys, 3 * count)} rows 0{removed} size 0 rows 0{use(keys, count)} all 0"


def speed_cases():
    """Yield texts and keys of several kinds, many of them, and small cases."""
    cases = [counted(40000, 14000), counted(15000, 5000)]
    kinds = [
        (4, 9, LETTERS, 12000),
        (6, 6, LETTERS, 8000),
        (8, 14, bytes(range(1, 256)), 8000),
        (40, 90, LETTERS, 3000),
    ]
    for least, most, letters, count in kinds:
        keys = [word(least, most, letters) for _ in range(count * 8 // 10 + RANDOM.randrange(count // 5))]
        calls = "".join(f" count 0 {key_text(key)} {RANDOM.randint(1, 9)}" for key in keys) + use(keys, count).replace(
            " rows 0", ""
        )
        cases.append(f"go new 0{calls} size 0 all 0")
    keys = [f"id{number * 37}".encode() for number in RANDOM.sample(range(10**6), 6000)]
    cases.append(f"go new 0 {' '.join(f'count 0 {key_text(key)} 1' for key in keys * 2)} size 0 all 0")
    cases += [whole_table(similar(RANDOM.randint(3, 30)), 60), large_counts(), rows_that_stay(), counted(300, 90)]
    cases += [
        table_after_table([word(0, 4) for _ in range(20)]),
        whole_table([word(0, 3, b"ab") for _ in range(10)], 40),
    ]
    RANDOM.shuffle(cases)
    yield from cases


for line in edge_cases() if PART == "edge" else speed_cases():
    print(line)
