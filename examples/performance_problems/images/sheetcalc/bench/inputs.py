"""Prints cases for bench.worker, one a line, made from $BENCH_SEED: big sheets, or small odd ones (BENCH_PART=edge).

A case is a list of steps: ["set", cell, content], ["clear", cell], ["value", cell] and ["values"] of the present sheet;
["new"] begins another one and puts the last aside, ["swap"] takes that up again; ["spoil"] changes what was given last.
["position", name], ["name_of", column, row] and ["rectangle", first, last] are asked of `sheetcalc.cells`.
"""

import os
import random
import re
from json import dumps

NAMES = ("A1", "A2", "A3", "B1", "B2", "B3", "C1", "C2", "AA1", "Z9", "SUM1")
NO_NAMES = ("A0", "a1", "A01", "1", "", "AAAA1", "A1000000", "A1 ", "Ä1", "A1:B2", "A-1", "COUNT1")
NO_FORMULAS = ("", "1+", "(1", "1)", "A0", "SUM(A1)", "SUM A1:A2", "1 2", "a1", "1/2", "SUM(A1:B2", "MAX()", "A1:B2")
NO_FORMULAS += ("()", "*1", "1..2", "AAAA1+1", "MIN(A1:A0)", "SUMA1", "1,2", "=1", "--", "A1 B1", "COUNT(1:2)")
NO_FORMULAS += ("²", "1\n+", " ?", " 1 ) ", "  a1")
NO_CONTENTS = ("1", "", " =1", "text", None, 1.5, [1])


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{os.environ.get('BENCH_SEED', '0')}:{part}")
    for case in edge_cases(rng, 240) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Sheets of several kinds, changed and asked a few times, and small ones in between."""
    cases = edge_cases(rng, 10)
    kinds = ((budget, 1500), (budget, 2500), (doubling, 1500), (totals, 2000), (long_formulas, 300), (lookups, 1500))
    for kind, work in kinds:
        cells = sized(kind, rng, work)
        steps = [["new"], *(["set", *cell] for cell in cells.items()), ["values"]]
        for _ in range(2):
            inputs = [cell for cell, content in cells.items() if not isinstance(content, str)]
            steps.append(rng.choice((["set", rng.choice(inputs), rng.randrange(100)], ["clear", rng.choice(inputs)])))
            steps += [["values"], ["value", rng.choice(tuple(cells))]]
        # Mistakes in the end, where other cells are needed, too.
        cell = rng.choice(tuple(cells))
        for name, content in (("Z1", f"={cell}+Z2"), ("Z3", "=" + rng.choice(NO_FORMULAS)), ("Z2", f"=0*{cell}*Z1")):
            steps += [["set", name, content], ["value", name]]
        steps += [["clear", "Z1"], ["value", "Z2"]]
        cases.append(steps)
    rng.shuffle(cases)
    return cases


def sized(kind, rng, work):
    """A sheet with so many rows that computing all cells without remembering any looks at about that many formulas."""
    cells = kind(rng, 3)
    for rows in range(4, 200):
        larger = kind(rng, rows)
        if sum(effort(larger).values()) > 1.5 * work:
            break
        cells = larger
    return cells


def budget(rng, rows):
    """Lines that build upon those above."""
    cells = {}
    for row in range(1, rows + 1):
        cells[f"A{row}"] = rng.randrange(1, 100)
        cells[f"B{row}"] = f"=A{row}*{rng.randrange(2, 9)}-{rng.randrange(50)}"
        last = f"-C{row - 2}" if row % 2 else f"+MIN(A{row}:B{row})"
        cells[f"C{row}"] = f"=C{row - 1}+B{row}{last}" if row > 2 else f"=B{row}+1"
        cells[f"D{row}"] = f"=MAX(B1:B{row})-MIN(A{row}:C{row})+COUNT(A1:C{row})"
    cells["E1"] = f"=SUM(D1:D{rows})"
    return cells


def doubling(rng, rows):
    """Every line needs the one above twice."""
    cells = {"A1": rng.randrange(9), "B1": rng.randrange(9)}
    for row in range(2, rows + 1):
        cells[f"A{row}"] = f"=A{row - 1}{rng.choice('+-')}(A{row - 1}-B1)"
    return shuffled(rng, cells)


def totals(rng, rows):
    """Sums of everything above, of sums."""
    cells = {f"{column}1": rng.randrange(-50, 50) for column in "ABC"}
    for row in range(2, rows + 1):
        cells[f"A{row}"] = f"=SUM(A1:C{row - 1})-{rng.randrange(99)}"
        cells[f"B{row}"] = rng.randrange(50)
        cells[f"C{row}"] = f"={rng.choice(('MAX', 'MIN', 'COUNT'))}(B{row}:A1)"
    return shuffled(rng, cells)


def long_formulas(rng, rows):
    """Long texts, each needed by some others."""
    cells = {"A1": rng.randrange(9)}
    for row in range(2, rows + 1):
        terms = [f"({rng.randrange(99)}-A1*{rng.randrange(9)})" for _ in range(rng.randrange(20, 30))]
        cells[f"A{row}"] = "=" + rng.choice("+-").join(terms)
        cells[f"B{row}"] = f"=A{rng.randrange(1, row)}+A{row}-MAX(A1:A{min(row, 4)})"
    return shuffled(rng, cells)


def lookups(rng, rows):
    """Many cells that need the same few."""
    cells = {"A1": rng.randrange(100), "A2": rng.randrange(100)}
    for row in range(3, 9):
        cells[f"A{row}"] = f"=A{row - 1}+A{row - 2}-{rng.randrange(9)}"
    for row in range(1, rows + 1):
        cells[f"B{row}"] = f"=A{rng.randrange(5, 9)}*{row}+COUNT(A1:A{row})"
    return shuffled(rng, cells)


def shuffled(rng, cells):
    return dict(rng.sample(tuple(cells.items()), len(cells)))


def effort(cells):
    """How many formulas each cell's value takes, if no value is remembered; `inf` for cells of a cycle."""
    known, open_cells = {}, []

    def of(cell):
        if cell in open_cells:
            return float("inf")
        if cell not in known:
            content = cells.get(cell, 0)
            open_cells.append(cell)
            known[cell] = 1 + sum(map(of, needs(content[1:]))) if isinstance(content, str) else 0
            open_cells.pop()
        return known[cell]

    return {cell: of(cell) for cell in cells}


def needs(text):
    """The cells that a formula reads, as often as it does."""
    needed = []
    text = re.sub(r"COUNT\([^)]*\)", "", text)
    for first, top, last, bottom in re.findall(r"\b([A-Z]+)(\d+)(?::([A-Z]+)(\d+))?", text):
        if not last:
            needed.append(first + top)
        else:
            columns = [column for column in "ABCDEZ" if min(first, last) <= column <= max(first, last)]
            rows = range(min(int(top), int(bottom)), max(int(top), int(bottom)) + 1)
            needed += [f"{column}{row}" for row in rows for column in columns]
    return needed


def edge_cases(rng, count):
    """Few cells with all kinds of formulas, good and bad, cycles that come and go, and wrong names and contents."""
    cases = [[["new"], ["values"], ["value", "A1"], ["clear", "A1"], ["spoil"], ["values"], ["value", "no name"]]]
    while len(cases) < count // 2:
        cases.append(sound_case(rng))
    while len(cases) < count:
        names = rng.sample(NAMES, rng.choice((1, 2, 3, 4, 5, 7)))
        cells = {}
        steps = [["new"]]
        for _ in range(rng.randrange(4, 26)):
            steps.append(edge_step(rng, names, cells))
            if rng.random() < 0.08 and len(steps) > 4:
                steps += [["new"], *(step for step in steps[1 : rng.randrange(2, 6)] if step[0] == "set"), ["swap"]]
        steps += [["value", name] for name in names] + [["values"]]
        cases.append(steps)
    rng.shuffle(cases)
    return cases[:count]


def sound_case(rng):
    """Sheets without mistakes: what was asked before a change is asked again after it."""
    names = rng.sample(NAMES, rng.randrange(3, 8))
    steps = []
    for _ in range(rng.choice((1, 1, 2))):
        cells = {}
        for name in names:
            cells[name] = sound_content(rng, names, cells, name)
        steps += [["new"], *(["set", name, content] for name, content in cells.items())]
    for _ in range(rng.randrange(3, 8)):
        asked = rng.choice((["value", rng.choice(names)], ["value", names[-1]], ["values"]))
        name = rng.choice(names)
        kind = rng.randrange(6)
        if kind < 2:
            cells.pop(name, None)
            change = ["clear", name]
        elif kind < 5:
            cells[name] = sound_content(rng, names, cells, name)
            change = ["set", name, cells[name]]
        else:
            asked = rng.choice((["values"], ["rectangle", rng.choice(("A1", "B1")), "A3"]))
            change = ["spoil"]
        steps += [asked, change, asked]
    if steps.count(["new"]) == 2:
        swapped = [["value", names[-1]], ["swap"], ["value", names[-1]], ["values"], ["swap"], ["values"]]
        steps += [*swapped, ["swap"], ["clear", names[0]], *swapped]
    return steps


def sound_content(rng, names, cells, name):
    """An integer, or a formula that can be computed in a moment, with what the other cells are now."""
    for _ in range(5):
        content = formula(rng, names)
        if name != names[0] and sum(effort({**cells, name: content}).values()) < 300:
            return content
    return rng.choice((rng.randrange(-9, 30), rng.randrange(-9, 30), 10 ** rng.randrange(9, 22)))


def edge_step(rng, names, cells):
    name = rng.choice(names)
    kind = rng.randrange(14)
    if kind < 6:
        content = rng.choice((rng.randrange(-9, 10), formula(rng, names), formula(rng, names), formula(rng, names)))
        if effort_of({**cells, name: content}) < 300:
            cells[name] = content
            return ["set", name, content]
        return ["value", name]
    if kind == 6:
        cells.pop(name, None)
        return ["clear", name]
    if kind == 7:
        if rng.random() < 0.2:
            return ["clear", rng.choice(NO_NAMES)]
        wrong = ((name, rng.choice(NO_CONTENTS)), (rng.choice(NO_NAMES), 1), (rng.choice(NO_NAMES), "x"))
        return ["set", *rng.choice(wrong)]
    if kind == 8:
        content = rng.choice(("=" + rng.choice(NO_FORMULAS), "=" + damaged(rng, formula(rng, names)[1:]), True, 10**30))
        cells[name] = 0
        return ["set", name, content]
    if kind == 9:
        corner = rng.choice(names)
        return rng.choice(
            (
                ["position", rng.choice((name, rng.choice(NO_NAMES)))],
                ["name_of", rng.choice((1, 26, 27, 52, 702, 703, 18278)), rng.randrange(1, 99)],
                ["rectangle", name, corner] if "SUM1" not in (name, corner) else ["rectangle", "SUM1", "SUN2"],
                ["rectangle", rng.choice(NO_NAMES), "A1"],
            )
        )
    if kind == 10:
        return rng.choice((["spoil"], ["values"], ["value", rng.choice(NO_NAMES)]))
    return ["values"] if kind == 11 else ["value", name]


def effort_of(cells):
    """The sum for all cells that are in no cycle."""
    return sum(number for number in effort(cells).values() if number != float("inf"))


def formula(rng, names):
    return "=" + spaced(rng, expression(rng, names, rng.randrange(4)))


def expression(rng, names, depth):
    """Numbers, cells, rectangles of cells and what can be made of them."""
    kind = rng.randrange(9)
    if kind == 8 and rng.random() < 0.3:
        return f"0*{rng.choice(names)}"
    if depth == 0 or kind == 0:
        return rng.choice((str(rng.randrange(12)), rng.choice(names), rng.choice(names), rectangle(rng), "007", "٣"))
    if kind < 5:
        return f"{expression(rng, names, depth - 1)}{rng.choice('+-+-*')}{expression(rng, names, depth - 1)}"
    if kind == 5:
        return f"-{expression(rng, names, depth - 1)}"
    return f"({expression(rng, names, depth - 1)})" if kind < 8 else rectangle(rng)


def rectangle(rng):
    corners = [f"{rng.choice('AB')}{rng.randrange(1, 4)}" for _ in range(2)]
    return f"{rng.choice(('SUM', 'MAX', 'MIN', 'COUNT'))}({corners[0]}:{corners[1]})"


def spaced(rng, text):
    if rng.random() < 0.8:
        return text
    return "".join(letter + " " if letter in "+-*():" and rng.random() < 0.5 else letter for letter in text) + " "


def damaged(rng, text):
    place = rng.randrange(len(text) + 1)
    other = rng.choice(("", "+", ")", "(", "A", "1", ":", " ", "?", "SUM"))
    return text[:place] + other + text[place + rng.randrange(2) :]


if __name__ == "__main__":
    main()
