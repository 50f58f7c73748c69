"""Answers cases of benchmarks.inputs, line by line.

    <- a case           -> ready
    <- go               -> done, then one line with everything that came of the case

The steps of the case are taken, and timed, between "go" and "done". With --time there is no waiting, and the sum of the
times in seconds is printed to stderr.
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

from roadmap import Network, distances, route  # noqa: E402

PLACES = {
    "integer": lambda number: number,
    "text": lambda number: f"{'aÄz'[number % 3]}{number}",
    "pair": lambda number: (number % 7, number),
    "half": lambda number: number / 2,
}


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        case = loads(line)
        steps = [with_places(PLACES[case["kind"]], *step) for step in case["steps"]]
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("a case without go")
        begin = perf_counter()
        results, network = take(steps)
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        roads = [(place, *network.roads_from(place)) for place in network.places()]
        send(dumps([plain(results), repr(roads)]))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def with_places(place, name, *arguments):
    """The step with places instead of their numbers."""
    if name == "roads":
        return name, [(place(start), place(end), *rest) for start, end, *rest in arguments[0]]
    count = {"road": 2, "route": 2, "distances": 1, "place": 1}.get(name, 0)
    return (name, *map(place, arguments[:count]), *arguments[count:])


def take(steps):
    """What each step returned or raised, and the last network."""
    results = []
    network = None
    for name, *arguments in steps:
        try:
            if name == "network":
                network = None  # the next one may well be where it was
                network = Network()
            elif name == "roads":
                for road in arguments[0]:
                    add_road(network, *road)
            elif name == "road":
                add_road(network, *arguments)
            elif name == "place":
                network.add_place(*arguments)
            elif name == "places":
                results.append(network.places())
            elif name == "route":
                results.append(route(network, *arguments))
            elif name == "distances":
                results.append(distances(network, *arguments))
            elif type(results[-1]) is dict:  # spoil
                results[-1]["spoiled"] = results[-1].pop(next(iter(results[-1])))
        except Exception as error:
            results.append(error)
    return results, network


def add_road(network, start, end, length, one_way):
    network.add_road(start, end, length, one_way=one_way)


def plain(value):
    """The value for JSON; other types than JSON's are named, dictionaries keep their order."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list:
        return [plain(each) for each in value]
    if kind is float:
        return {"float": value.hex()}
    if kind is tuple:
        return {"tuple": [plain(each) for each in value]}
    if kind is dict:
        return {"dict": [[plain(key), plain(each)] for key, each in value.items()]}
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, tuple):
        fields = getattr(kind, "_fields", ())
        parts = list(tuple.__iter__(value))
        if any(getattr(value, field, parts) is not part for field, part in zip(fields, parts)):
            name = f"tuple with other attributes, {name}"
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
