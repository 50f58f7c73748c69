"""Does what the lines of bench_inputs.py say: for each it prints "ready", waits for "go", prints "done" and the answer.

Between "go" and "done" nothing but the operations is done, and that is measured. `bench_worker.py --time` waits for
nothing, prints the answers, and at the end the seconds of all operations to stderr.
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

from hotcache import LRUCache, Outcome, replay  # noqa: E402

TYPES = {"float": float, "tuple": lambda *parts: tuple(map(key_of, parts)), "bytes": str.encode}
TAKE_A_KEY = ("get", "get_default", "peek", "peek_default", "in", "put", "remove", "remove_odd", "change_value")


def main():
    timed = sys.argv[1:] == ["--time"]
    seconds = 0.0
    for line in iter(CASES.readline, b""):
        operations = [with_keys(*operation) for operation in loads(line)]
        if not timed:
            send("ready")
            if CASES.readline() != b"go\n":
                sys.exit("after a case comes go")
        begin = perf_counter()
        results = Script().run(operations)
        seconds += perf_counter() - begin
        if not timed:
            send("done")
        send(dumps(plain(results)))
    if timed:
        print(f"{seconds:.3f} s", file=sys.stderr)


def send(line):
    ANSWERS.write(line.encode() + b"\n")
    ANSWERS.flush()


def with_keys(name, *arguments):
    """The operation with real keys instead of those of JSON."""
    if name in TAKE_A_KEY:
        return (name, key_of(arguments[0]), *arguments[1:])
    if name == "replay":
        return (name, *arguments[:2], [key_of(each) for each in arguments[2]])
    return (name, *arguments)


def key_of(each):
    return TYPES[each[0]](*each[1:]) if isinstance(each, list) else each


class Script:
    """One cache at a time; `told` has what was evicted."""

    def __init__(self):
        self.cache = None
        self.second = None
        self.last = None
        self.told = []

    def run(self, operations):
        """What every operation returned or raised, and what was evicted."""
        results = []
        for name, *arguments in operations:
            try:
                results.append(getattr(self, f"do_{name}")(*arguments))
            except Exception as error:
                results.append(error)
        return [results, self.told]

    def do_new(self, capacity, listener):
        self.second = LRUCache(2, lambda key, value: self.told.append(("second", key, value)))
        self.cache = LRUCache(capacity, self.listener(listener)) if listener else LRUCache(capacity)

    def listener(self, name):
        """What hears of evictions: "second" is another cache, which takes what this one forgets."""
        if name == "second":
            return self.second.put
        return name and getattr(self, f"do_{name}")

    def do_tell(self, key, value):
        self.told.append((key, value))

    def do_look(self, key, value):
        """What the cache is like when it tells of an eviction."""
        self.told.append((key, value, len(self.cache), key in self.cache, self.cache.capacity))

    def do_fail(self, key, value):
        self.told.append((key, value))
        if len(self.told) % 3 == 0:
            raise RuntimeError(f"eviction {len(self.told)}")

    def do_use(self, key, value):
        """What a listener does to the cache's other entries: uses the first, takes out the second."""
        kept = self.cache.items()
        self.told.append((key, value, [self.cache.get(each) for each, _ in kept[:1]]))
        if len(self.told) % 4 == 0 and len(kept) > 1:
            self.told.append(self.cache.remove(kept[1][0]))

    def do_miss(self, key, value):
        self.told.append((key, value))
        if len(self.told) % 2 == 0:
            raise KeyError("missed")

    def do_listen(self, name):
        self.cache.on_evict = self.listener(name)

    def do_get(self, key):
        return self.cache.get(key)

    def do_get_default(self, key):
        return self.cache.get(key, "default")

    def do_peek(self, key):
        return self.cache.peek(key)

    def do_peek_default(self, key):
        return self.cache.peek(key, default="default")

    def do_in(self, key):
        return key in self.cache

    def do_put(self, key, value):
        self.last = value
        return self.cache.put(key, value)

    def do_remove(self, key):
        return self.cache.remove(key)

    def do_remove_odd(self, key):
        """Of the error only that there is one: what it says of None or a tuple differs between dictionaries."""
        try:
            return self.cache.remove(key)
        except KeyError:
            return "KeyError"

    def do_change_value(self, key):
        """Appends to a value that is a list, where it is."""
        value = self.cache.peek(key)
        if type(value) is list:
            value.append("changed")

    def do_change_last(self):
        """Does it to the value that was put last."""
        if type(self.last) is list:
            self.last.append("changed last")

    def do_resize(self, capacity):
        return self.cache.resize(capacity)

    def do_set_capacity(self, capacity):
        self.cache.capacity = capacity

    def do_capacity(self):
        return self.cache.capacity

    def do_length(self):
        return len(self.cache)

    def do_items(self):
        return self.cache.items()

    def do_spoil_items(self):
        items = self.cache.items()
        items.append("spoiled")
        return self.cache.items()

    def do_replay(self, how, capacity, trace):
        return replay(iter(trace) if how == "iterator" else trace, capacity)


def plain(value):
    """The value for JSON, with its exact type where JSON has none for it."""
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return value
    if kind is list:
        return [plain(each) for each in value]
    if kind is tuple or kind is Outcome:
        return {kind.__name__: [plain(each) for each in value]}
    if kind is float or kind is bytes:
        return {kind.__name__: repr(value)}
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
