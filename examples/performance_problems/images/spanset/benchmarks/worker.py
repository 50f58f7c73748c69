"""Answers cases of `benchmarks.inputs`: reads one a line, and prints one line for each.

When it has read a case it prints "ready" and waits for "go", so that only the calls are measured: then it makes them,
prints "done", and the answer, with all results and the spans as they are then. With --time it answers at once, and
prints the seconds of all calls to stderr at the end.
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

from spanset import Span, gaps, merge, total  # noqa: E402

COLLECTIONS = {"list": lambda spans: spans, "tuple": tuple, "iterator": iter, "set": frozenset}


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        case = loads(line)
        spans = [Span(*span) for span in case["spans"]]
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("a case is followed by go")
        begin = perf_counter()
        results = answer(spans, case["calls"])
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        send(dumps({"results": plain(results), "spans": plain(spans)}))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def answer(spans, calls):
    """What each call returned or raised."""
    results = []
    for name, *arguments in calls:
        if name == "replace":
            spans[arguments[0]] = Span(*arguments[1:])
        elif name == "append":
            spans.append(Span(*arguments))
        elif name == "delete":
            del spans[arguments[0]]
        elif name == "reverse":
            spans.reverse()
        elif name == "spoil":
            if type(results[-1]) is list:
                results[-1].append(Span(0, 1))
        else:
            try:
                results.append(ask(name, arguments, spans))
            except Exception as error:
                results.append(error)
    return results


def ask(name, arguments, spans):
    if name == "gaps":
        return gaps(spans, Span(*arguments))
    return (merge if name == "merge" else total)(COLLECTIONS[arguments[0]](spans))


def plain(value):
    """The value as JSON has it, with the exact type of what JSON has not."""
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return value
    if kind is list:
        return [plain(each) for each in value]
    if kind is Span:
        return {"Span": [plain(each) for each in value]}
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
