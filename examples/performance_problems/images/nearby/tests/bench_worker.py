"""Answers what bench_inputs.py prints, case by case: "ready", and after "go" "done" and one line with all hits.

An index is made, asked, and timed, between "go" and "done". `bench_worker.py --time` does all that without waiting and
says in the end, on stderr, how many seconds it took.
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

from nearby import Hit, Index  # noqa: E402
from places import Place  # noqa: E402

HIT = f"{Hit.__module__}.{Hit.__qualname__} of {getattr(Hit, '_fields', None)}"


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        case = loads(line)
        places = [Place(*place) for place in case["places"]]
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("no go for a case")
        begin = perf_counter()
        results = answer(places, case["calls"])
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        send(dumps([HIT, plain(results), plain(places)]))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def answer(places, calls):
    """What every call returned or raised."""
    results = []
    index = Index(places)
    for name, *arguments in calls:
        if name == "change":
            places[arguments[0]] = Place(*arguments[1:])
        elif name == "append":
            places.append(Place(*arguments))
        elif name == "renew":
            index = None  # the next one may well be where it was
            index = Index(iter(places))
        elif name == "spoil":
            if results and type(results[-1]) is list:
                results[-1].insert(0, "spoiled")
        else:
            try:
                results.append(ask(index, name, arguments))
            except Exception as error:
                results.append(error)
    return results


def ask(index, name, arguments):
    if name == "nearest":
        return index.nearest(*arguments)
    return index.within(*arguments) if name == "within" else len(index)


def plain(value):
    """The value for JSON, with the type of each hit and place."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list:
        return [plain(each) for each in value]
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, tuple):
        fields = getattr(kind, "_fields", ())
        parts = list(tuple.__iter__(value))
        if any(getattr(value, field, parts) is not part for field, part in zip(fields, parts)):
            name = f"tuple with other attributes, {name}"
        elif kind is Place or kind is Hit:
            return {"Place" if kind is Place else "Hit": [plain(each) for each in parts]}
        return {f"{name}({','.join(fields)})": [plain(each) for each in parts]}
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
