"""Prints cases for benchmarks.worker, one a line, made from $BENCH_SEED: large logs, or with BENCH_PART=edge odd ones.

A case has logs by name, every byte of which is a character of the text (Latin-1), and calls: ["summarize", name, type
of the path], ["render"] of the last report, ["line", text] for `read_line`. In between logs change by ["append", name,
more], ["overwrite", name, log] in place with the old time stamp, and ["replace", name, log]; ["spoil"] changes the last
report.
"""

import os
import random
from json import dumps

METHODS = ("GET", "GET", "POST", "HEAD")
ODD_NUMBERS = ("-", "-1", "+1", "1.0", "1_0", "0x1", "²", "", "٣", "００7", "00012", "0", "ok", "1,0")
ODD_NUMBERS += ("12345678901234567890123",)
ODD_PATHS = ("?", "?a=1", "/a?", "/a?b?c", "/A", "/a", "/a#b", "/é", "/日本", "/\U0001f600", "/\ufffd")
ODD_PATHS += ("/%20", "-", "/a\x00b", "/a?" + "b" * 20_000, *("/long" * 60 + end for end in "/ab"))
SPACES = (" ", " ", " ", "  ", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2003", "\u2028")
LINE_ENDS = (b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"\n \t\n", b"\r\r\n")
ODD_BYTES = (b"\xff", b"\xc3", b"\xe2\x82", b"\xef\xbb\xbf", b"\x00", b"\xed\xa0\x80", b"\xc0\x80")


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{os.environ.get('BENCH_SEED', '0')} {part}")
    for case in edge_cases(rng, 260) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Logs with many and with few endpoints, some of which grow, and small ones in between."""
    cases = edge_cases(rng, 10)
    for requests, endpoints in ((1300, 30), (700, 55), (3000, 8), (450, 90), (1000, 30)):
        log = worn(rng, day(rng, requests, endpoints))
        cases.append(case({"access.log": log}, ["summarize", "access.log", "str"], ["render"]))
    log, more = day(rng, 500, 22), day(rng, 40, 6)
    asked = ["summarize", "access.log", "str"]
    calls = [asked, ["append", "access.log", text(more)], asked]
    other = bytearray(log)
    place = other.index(b" 200 ")
    other[place : place + 5] = b" 404 "
    calls += [["overwrite", "access.log", text(other)], asked, ["render"]]
    cases.append(case({"access.log": log}, *calls))
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Short logs with malformed lines, ties, strange spaces, line ends and bytes, which change between calls."""
    cases = [
        case({"access.log": b""}, ["summarize", "access.log", "str"], ["render"], ["summarize", "missing.log", "str"]),
        case({"access.log": b" \n\t\n"}, ["summarize", "access.log", "Path"], ["render"], ["line", " "]),
    ]
    while len(cases) < count:
        logs = {name: some_log(rng) for name in rng.choice((("access.log",), ("access.log", "other.log")))}
        calls = []
        for _ in range(rng.randrange(1, 5)):
            name = rng.choice(tuple(logs))
            asked = ["summarize", name, rng.choice(("str", "str", "Path"))]
            calls += [asked, ["render"]] if rng.random() < 0.5 else [asked]
            if rng.random() < 0.5:
                calls += [change(rng, name, logs), asked, *rng.choice(([], [["render"]]))]
            if rng.random() < 0.4:
                calls.append(["line", odd_line(rng)])
        cases.append(case(logs, *calls))
    rng.shuffle(cases)
    return cases[:count]


def change(rng, name, logs):
    kind = rng.choice(("append", "overwrite", "replace", "spoil"))
    if kind == "spoil":
        return [kind]
    if kind == "overwrite":
        # As long as it was, but with other digits.
        digits = bytes.maketrans(b"0123456789", bytes(rng.sample(b"0123456789", 10)))
        return [kind, name, text(logs[name].translate(digits))]
    return [kind, name, text(some_log(rng))]


def case(logs, *calls):
    return {"logs": {name: text(log) for name, log in logs.items()}, "calls": calls}


def text(log):
    return log.decode("latin-1")


def some_log(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return day(rng, rng.choice((1, 2, 5, 19, 20, 21, 40, 41, 80)), rng.choice((1, 1, 2, 4, 9)))
    log = b"".join(rng.choice((day(rng, 1, 3), odd_line(rng).encode())) for _ in range(rng.randrange(1, 12)))
    if kind == 1:
        return log
    lines = [line for line in log.split(b"\n") if line]
    log = b"".join(line + rng.choice(LINE_ENDS) for line in lines)
    if rng.random() < 0.1:
        log = rng.choice((b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\xef\xbb\xbf ")) + log
    if kind == 2:
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(log) + 1)
            log = log[:place] + rng.choice(ODD_BYTES) + log[place:]
    return log if rng.random() < 0.6 else log.rstrip()


def day(rng, requests, count):
    """An ordinary log: the first endpoints are the most frequent."""
    endpoints = [f"/api/v{rng.randrange(4)}/{rng.randrange(16 ** rng.choice((1, 5))):x}" for _ in range(count)]
    lines = []
    for second in range(requests):
        endpoint = endpoints[min(rng.randrange(count), rng.randrange(count))] if second >= count else endpoints[second]
        query = rng.choice(("?page=2", "?", "?a=/b?c")) if rng.random() < 0.3 else ""
        status = rng.choice((200, 200, 200, 304, 399, 400, 404, 503))
        took = "-" if rng.random() < 0.02 else int(rng.expovariate(0.02))
        lines.append(f"{second} {rng.choice(METHODS)} {endpoint}{query} {status} {rng.randrange(9000)} {took}\n")
    return "".join(lines).encode()


def worn(rng, log):
    """The log with some odd lines, line ends and bytes."""
    lines = log.splitlines(keepends=True)
    for _ in range(5):
        lines.insert(rng.randrange(len(lines)), odd_line(rng).encode())
        lines.insert(rng.randrange(len(lines)), rng.choice(lines).rstrip() + rng.choice(LINE_ENDS))
    log = b"".join(lines)
    place = rng.randrange(len(log))
    return log[:place] + rng.choice(ODD_BYTES) + log[place:]


def odd_line(rng):
    """A line of which one thing or two are strange."""
    status = rng.choice(("200", "399", "400", "999"))
    fields = ["10:00", "GET", rng.choice(("/a", "/b", "/a?x")), status, "10", str(rng.randrange(9))]
    for _ in range(rng.choice((0, 1, 1, 2))):
        kind = rng.randrange(5)
        if kind == 0:
            fields[2 % len(fields)] = rng.choice(ODD_PATHS)
        elif kind < 3:
            fields[rng.randrange(3, 6) % len(fields)] = rng.choice(ODD_NUMBERS)
        elif kind == 3:
            fields.insert(rng.randrange(7), rng.choice(("more", "7", "")))
        else:
            del fields[rng.randrange(len(fields))]
    space = rng.choice((" ", rng.choice(SPACES)))
    return rng.choice(("", "", space)) + space.join(fields) + rng.choice(("", "", space)) + "\n"


if __name__ == "__main__":
    main()
