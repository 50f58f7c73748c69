"""Answers the cases of bench/inputs.py, one line each.

A line with a case is answered by "ready"; after the line "go" come "done" and a line with the answer, which has the
result of every call. What is between "go" and "done" is measured. With --time there is only the answer, and the seconds
of all calls follow on stderr.
"""

import builtins
import os
import sys
from json import dumps, loads
from pathlib import Path
from time import perf_counter

# The answers have stdout to themselves: what anything else prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
CASES = sys.stdin.buffer
BUILTINS = dict(vars(builtins))

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzzyfind import Vocabulary, distance  # noqa: E402


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        case = loads(line)
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("no go after a case")
        begin = perf_counter()
        results = answer(case["words"], case["calls"])
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        send(dumps([plain(results), plain(case["words"])]))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def answer(words, calls):
    """What every call returned or raised."""
    vocabulary = Vocabulary(words)
    results = []
    for name, *arguments in calls:
        if name == "append":
            words.append(*arguments)
        elif name == "renew":
            vocabulary = Vocabulary(iter(words))
        elif name == "spoil":
            if results and type(results[-1]) is list:
                results[-1].insert(0, "spoiled")
        else:
            try:
                results.append(ask(vocabulary, name, arguments))
            except Exception as error:
                results.append(error)
    return results


def ask(vocabulary, name, arguments):
    if name == "suggest":
        return vocabulary.suggest(*arguments)
    if name == "distance":
        return distance(*arguments)
    if name == "contains":
        return arguments[0] in vocabulary
    return len(vocabulary) if name == "length" else tuple(vocabulary.words)


def plain(value):
    """What JSON can hold, with exact types: tuples are objects, everything strange is named."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list:
        return [plain(each) for each in value]
    if kind is tuple:
        return {"tuple": [plain(each) for each in value]}
    if isinstance(value, Exception):
        return {"raises": names(kind), "text": str(value)}
    return {"type": f"{kind.__module__}.{kind.__qualname__}"}


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
