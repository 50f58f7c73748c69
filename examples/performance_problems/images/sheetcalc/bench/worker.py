"""Answers cases of bench.inputs: for every line "ready", and after "go" "done" and one line with all that came of it.

Sheets are filled, changed and asked, and timed, between "go" and "done". With --time nothing is waited for, and the
seconds of all cases are printed to stderr.
"""

import builtins
import os
import sys
from json import dumps, loads
from time import perf_counter

# The answers have stdout to themselves: what anything else prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
CASES = sys.stdin.buffer
BUILTINS = dict(vars(builtins))

from sheetcalc import Sheet, cells  # noqa: E402

WORD = 1 << 62


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        steps = loads(line)
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("a case, but no go")
        begin = perf_counter()
        results = take(steps)
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        send(dumps(plain(results)))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def take(steps):
    """What each step returned or raised."""
    results = []
    sheet = aside = None
    for name, *arguments in steps:
        if name == "new":
            aside = sheet
            sheet = Sheet()
        elif name == "swap":
            sheet, aside = aside, sheet
        elif name == "spoil":
            if results and type(results[-1]) is dict:
                results[-1]["A1"] = "spoiled"
            elif results and type(results[-1]) is list:
                results[-1].append("spoiled")
        else:
            source = cells if name in ("position", "name_of", "rectangle") else sheet
            try:
                results.append(getattr(source, name)(*arguments))
            except Exception as error:
                results.append(error)
    return results


def plain(value):
    """The value for JSON, with exact types; dictionaries in their order, integers of any size."""
    kind = type(value)
    if kind is int and not -WORD < value < WORD:
        return {"int": hex(value)}
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list:
        return [plain(each) for each in value]
    if kind is tuple:
        return {"tuple": [plain(each) for each in value]}
    if kind is dict:
        return {"dict": [[plain(key), plain(each)] for key, each in value.items()]}
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Exception):
        return {"raises": names(kind), "text": str(value)}
    return {"type": name}


def names(kind):
    """A class and its bases, by which it is caught; one that has the name of another is not that."""
    found = []
    for each in kind.__mro__:
        known = BUILTINS if each.__module__ == "builtins" else vars(sys.modules[each.__module__])
        name = f"{each.__module__}.{each.__qualname__}"
        found.append(name if known.get(each.__qualname__) is each else f"another {name}")
    return found


if __name__ == "__main__":
    main()
