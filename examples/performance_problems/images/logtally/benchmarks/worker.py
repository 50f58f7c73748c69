"""Answers cases of benchmarks.inputs: "ready" for each, after "go" "done" and a line with all reports.

Logs are written before it is ready, in a folder of its own; what is measured lies between "go" and "done". With --time
cases follow each other at once, and the seconds are printed to stderr.
"""

import builtins
import os
import sys
from json import dumps, loads
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

# The answers have stdout to themselves: what anything else prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
CASES = sys.stdin.buffer
BUILTINS = dict(vars(builtins))

from logtally.lines import Entry, read_line  # noqa: E402
from logtally.report import render, summarize  # noqa: E402

PATHS = {"str": str, "Path": Path}


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        case = loads(line)
        for name, log in case["logs"].items():
            write(name, log)
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("go is missing after a case")
        begin = perf_counter()
        results = answer(case["calls"])
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        logs = {name: Path(name).read_bytes().decode("latin-1") for name in case["logs"]}
        send(dumps([plain(results), logs]))
        for name in logs:
            Path(name).unlink()
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def write(name, log, mode="wb"):
    with open(name, mode) as file:
        file.write(log.encode("latin-1"))


def answer(calls):
    """What every call returned or raised."""
    results = []
    report = None
    for name, *arguments in calls:
        try:
            if name == "summarize":
                report = None
                report = summarize(PATHS[arguments[1]](arguments[0]))
                results.append(report)
            elif name == "render":
                results.append(render(report))
            elif name == "line":
                results.append(read_line(*arguments))
            elif name == "spoil":
                report.rows.extend(report.rows[:1])
            else:
                change(name, *arguments)
        except Exception as error:
            results.append(error)
    return results


def change(kind, name, log):
    if kind == "append":
        write(name, log, "ab")
    elif kind == "replace":
        write("new", log)
        os.replace("new", name)
    else:
        before = os.stat(name)
        write(name, log, "r+b")
        os.utime(name, ns=(before.st_atime_ns, before.st_mtime_ns))


def plain(value):
    """The value for JSON, with the types of what JSON has not."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list:
        return [plain(each) for each in value]
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is Entry:
        parts = (value.endpoint, value.status, value.size, value.milliseconds)
        like = Entry(*parts)
        return {name: [*map(plain, parts), value == like, hash(value) == hash(like), is_frozen(value)]}
    if isinstance(value, tuple):
        fields = getattr(kind, "_fields", ())
        parts = list(tuple.__iter__(value))
        if any(getattr(value, field, parts) is not part for field, part in zip(fields, parts)):
            name = f"tuple with other attributes, {name}"
        return {f"{name}({','.join(fields)})": [plain(each) for each in parts]}
    if isinstance(value, Exception):
        return {"raises": names(kind), "text": str(value)}
    return {"type": name}


def is_frozen(entry):
    try:
        entry.status = entry.status
    except AttributeError:
        return True
    return False


def names(kind):
    """A class and its bases, by which it is caught; one that has the name of another is not that."""
    found = []
    for each in kind.__mro__:
        known = BUILTINS if each.__module__ == "builtins" else vars(sys.modules[each.__module__])
        name = f"{each.__module__}.{each.__qualname__}"
        found.append(name if known.get(each.__qualname__) is each else f"another {name}")
    return found


if __name__ == "__main__":
    with TemporaryDirectory(prefix="logtally-") as folder:
        os.chdir(folder)
        main()
        os.chdir("/")
