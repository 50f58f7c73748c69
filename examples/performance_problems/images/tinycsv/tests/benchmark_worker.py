"""Parses the documents of tests/benchmark_inputs.py, one case a line, and prints all that came of it on one line.

It answers a case by "ready", and "go" by "done" and the results; the time from "go" to "done" is what counts. With the
argument --time it prints only results, and in the end the seconds for all of them to stderr.
"""

import builtins
import os
import sys
from json import dumps, loads
from time import perf_counter

# The results have stdout to themselves: what anything else prints goes to stderr.
RESULTS = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
CASES = sys.stdin.buffer
BUILTINS = dict(vars(builtins))

import tinycsv  # noqa: E402


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        calls = loads(line)
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("go has to follow a case")
        begin = perf_counter()
        results = call_all(calls)
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        send(dumps(plain(results)))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    RESULTS.write(line.encode() + b"\n")
    RESULTS.flush()


def call_all(calls):
    """What every call returned or raised, as it is after the changes."""
    results = []
    function, text = tinycsv.parse, ""
    for name, *arguments in calls:
        if name == "change":
            change(results[-1], *arguments)
            continue
        if name != "again":
            function = tinycsv.parse if name == "parse" else tinycsv.table
            text = arguments[0]
        try:
            results.append(function(text))
        except Exception as error:
            results.append(error)
    return results


def change(rows, number):
    """Changes one row and the list of rows, if that is what was returned."""
    if type(rows) is list and rows:
        row = rows[number % len(rows)]
        if type(row) is list:
            row.append("changed")
        elif type(row) is dict:
            row["changed"] = "changed"
        rows.append([])


def plain(value):
    """The value for JSON, which shows the types of everything."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list:
        return [plain(each) for each in value]
    if kind is dict:
        return {"dict": [[plain(key), plain(each)] for key, each in value.items()]}
    if isinstance(value, tinycsv.CSVError):
        return {"raises": names(kind), "text": str(value), "line": plain(value.line)}
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
