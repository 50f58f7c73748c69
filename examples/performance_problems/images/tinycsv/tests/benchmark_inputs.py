"""Prints documents for tests/benchmark_worker.py, some on each line, made from $BENCH_SEED; BENCH_PART=edge: odd ones.

A case is a list of calls: ["parse", text], ["table", text], ["change", row] changes a row of what the last call
returned, ["again"] repeats it.
"""

import os
import random
from json import dumps

PARTS = ["ash", "bell", "crow", "Dale", "é", "fern ", "gate", ", ", '"', "\n", "7", "42", " ", "\u2028", "\x0b"]
ODD = ["\r", "\r\n", "\x1c", "\x85", "\x00", "\ufeff", "\u2029", "\f", "\t", "'", "\\", '""', "日本", "\U0001f600", ";"]


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{part}:{os.environ.get('BENCH_SEED', '0')}")
    for case in edge_cases(rng, 230) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Address books of some kilobytes, with few and many quotes, and documents for the rules in between."""
    cases = edge_cases(rng, 10)
    sizes = ((0.0, 1300, 8), (0.2, 1600, 8), (0.2, 700, 25), (0.7, 900, 6), (0.9, 2600, 2), (0.1, 110, 100))
    for quoted, rows, columns in sizes:
        text = document(rng, some_fields(rng, quoted, 400), rows, columns)
        cases.append([["parse", text]])
    fields = some_fields(rng, 0.3, 100)
    header = [f"{field.strip()}{number}" for number, field in enumerate(fields[:9])]
    end = rng.choice(("\n", "\r\n"))
    rows = [header, *(rng.choices(fields, k=9) for _ in range(500))]
    cases.append([["table", "".join(",".join(map(quote, row)) + end for row in rows)], ["change", 7], ["again"]])
    # The mistake comes late.
    text = document(rng, some_fields(rng, 0.2, 100), 400, 6)
    cases.append([["parse", text + rng.choice(('"never', '"a"b', 'x,"y" \n', '"a"\r'))]])
    cases.append([["parse", '"' + document(rng, some_fields(rng, 0.0, 100), 300, 6) + '"']])
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Short documents of few characters, in all orders; address books of a few rows, some of them damaged."""
    cases = [[["parse", ""], ["table", ""], ["parse", "\n"], ["table", "\n"]]]
    cases.append([["parse", "\r"], ["parse", '"'], ["again"]])
    while len(cases) < count:
        case = []
        for _ in range(rng.randrange(3, 9)):
            name = rng.choice(("parse", "parse", "parse", "table"))
            kind = rng.randrange(4)
            if kind < 2:
                letters = rng.choice(('a,"\n', 'a,"\n\r', '",\r\n', 'ab"\n', 'a,"\n\r ' + rng.choice(ODD + PARTS)))
                text = "".join(rng.choices(letters, k=rng.choice((1, 2, 3, 4, 5, 6, 8, 12, 25, 60))))
            else:
                fields = some_fields(rng, rng.choice((0.0, 0.3, 1.0)), 12)
                text = document(rng, fields, rng.randrange(1, 9), rng.randrange(1, 6))
                if kind == 3:
                    text = damaged(rng, text)
            case.append([name, text])
            if rng.random() < 0.2:
                case += [["change", rng.randrange(3)], ["again"]]
        cases.append(case)
    rng.shuffle(cases)
    return cases[:count]


def some_fields(rng, quoted, count):
    """Fields, of which about that part has to be quoted."""
    fields = []
    for _ in range(count):
        letters = PARTS + ODD if rng.random() < 0.1 else PARTS if rng.random() < quoted else PARTS[:7]
        fields.append("".join(rng.choices(letters, k=rng.randrange(7))))
    return [field for field in fields if quoted or quote(field) == field] + ["", "z"]


def document(rng, fields, rows, columns):
    """Rows of these fields; some fields are in quotes without need, and the last line end may be missing."""
    ends = rng.choice((["\n"], ["\r\n"], ["\n", "\r\n"]))
    always = rng.random() * 0.3 if rng.random() < 0.5 else 0.0
    text = ""
    for _ in range(rows):
        row = rng.choices(fields, k=columns)
        text += ",".join(quote(field, rng.random() < always) for field in row) + rng.choice(ends)
    return text if rng.random() < 0.6 else text.removesuffix("\n").removesuffix("\r")


def quote(field, always=False):
    if always or any(letter in field for letter in ',"\r\n'):
        return '"' + field.replace('"', '""') + '"'
    return field


def damaged(rng, text):
    """The document with one to three characters put in, replaced or taken out."""
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(('"', ",", "\n", "\r", "x", "")) + text[place + rng.randrange(2) :]
    return text


if __name__ == "__main__":
    main()
