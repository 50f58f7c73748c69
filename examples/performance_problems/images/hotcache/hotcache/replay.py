"""What a cache of some capacity would have done on a trace of accesses."""

from collections import namedtuple

from .lru import LRUCache

Outcome = namedtuple("Outcome", "hits misses evicted kept")


def replay(trace, capacity):
    """Reads every key of the trace through a cache; a miss puts it in.

    `evicted` and `kept` are lists of keys: in the order of eviction, and from the one used longest ago to the last.
    """
    evicted = []
    cache = LRUCache(capacity, on_evict=lambda key, _: evicted.append(key))
    hits = misses = 0
    for number, key in enumerate(trace):
        if cache.get(key) is None:
            misses += 1
            cache.put(key, number + 1)
        else:
            hits += 1
    return Outcome(hits, misses, evicted, [key for key, _ in cache.items()])
