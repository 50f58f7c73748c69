"""A simulation of a server and its clients' slots, in simulated time."""

import heapq
import itertools
import random

TOKENS = 100


class SimulatedServer:
    """Does `limit` requests at a time in `latency_s` each; beyond that each takes longer, by the power `thrash`.

    `shared`: what it can do is shared at every moment; else a request takes as long as the number of requests says when
    it comes.
    """

    def __init__(self, limit, *, thrash=2.0, latency_s=1.0, jitter=0.0, tail=None, shared=False, seed=0):
        self.limit, self.thrash, self.latency_s, self.shared = limit, thrash, latency_s, shared
        self._jitter, self._tail = jitter, tail
        self._random = random.Random(seed)

    def length(self):
        """How long a request is, of a mean one: with a tail a few are many times as long."""
        length = 1 + self._jitter * self._random.uniform(-1, 1)
        return length if self._tail is None else length * min(20.0, self._random.paretovariate(self._tail))

    def slowdown(self, in_flight):
        return max(1.0, in_flight / self.limit) ** self.thrash


class Simulation:
    """Keeps a controller's slots, or a fixed number, busy with a server."""

    def __init__(self, server, slots):
        self.server, self.slots = server, slots
        self.now = self._done = 0.0  # `_done`: what each request has got of a server that is shared
        self.ended = []
        self.limits = []
        self._running, self._numbers = [], itertools.count()

    @property
    def limit(self):
        return self.slots if isinstance(self.slots, int) else self.slots.limit

    def run(self, count):
        """Make so many rollouts."""
        left = count
        while left or self._running:
            while left and len(self._running) < self.limit:
                self._start()
                left -= 1
            self._end()
        return self

    def _start(self):
        ticket = None if isinstance(self.slots, int) else self.slots.started(self.now)
        length = self.server.length()
        seconds = length * self.server.latency_s
        if self.server.shared:
            due = self._done + seconds
        else:
            due = self.now + seconds * self.server.slowdown(len(self._running) + 1)
        heapq.heappush(self._running, (due, next(self._numbers), ticket, TOKENS * length))

    def _end(self):
        due, _, ticket, tokens = self._running[0]
        if self.server.shared:
            self.now += (due - self._done) * self.server.slowdown(len(self._running))
            self._done = due
        else:
            self.now = due
        heapq.heappop(self._running)
        self.ended.append((self.now, tokens))
        if ticket is not None:
            self.slots.finished(self.now, ticket, work=tokens, congested=0)
            self.limits.append(self.slots.limit)

    def rate(self, *, after=0.0):
        """Tokens per second, of what ended after this part of the time."""
        since = after * self.now
        return sum(tokens for at, tokens in self.ended if at > since) / (self.now - since)


def best_rate(make):
    """The best rate of fixed numbers, some of them near the limit."""
    limit = make().limit
    numbers = {max(1, round(limit * factor)) for factor in (0.8, 0.9, 1.0, 1.1, 1.25)}
    return max(Simulation(make(), number).run(60 * limit).rate() for number in numbers)
