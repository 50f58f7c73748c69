"""How many rollouts are best made at a time: found by making them."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema

AUTO: Literal["auto"] = "auto"
PLANNED = 64
"""Rollouts at a time for which work is cut while the best number is not known."""

Concurrency = Annotated[
    Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"],
    BeforeValidator(lambda value: AUTO if value in (0, "0") else value),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 65_536}),
]
"""Rollouts at a time: a number, or `auto` for what gives the most tokens per second. Forms know numbers alone: 0."""
AS_FOUND = "; auto (in forms 0): as many as give the most tokens/s"
"""What the description of such a parameter says."""


def problems_at_a_time(concurrency: Concurrency, num_rollout: int) -> Concurrency:
    """Return how many problems of so many rollouts each are made at a time."""
    return AUTO if concurrency == AUTO else max(1, concurrency // num_rollout)


START = 8
"""Where a search begins: of a server that does so many at a time in one way or another, hardly anything is lost."""
MOST = 4096
_SPARE_FILES = 256
_BYTES_EACH = 4 << 20
"""Memory for one rollout: its prompt, its answer, and what the client keeps of a connection."""

_FASTEST_GROWTH = 2.0
_SLOW_GROWTH = 2**0.25
_RESOLUTION = 1.12
"""The search ends where neighbours that are known to be worse are nearer than this factor."""
_GAIN_TO_GROW = 1.05
_GAIN = 1.02
"""What makes more rollouts at a time worth it; as many fewer are better where they lose no more than this."""
_LINEAR = 0.9
_KNEE = 1.9
_PLAIN_GAIN = 1.5
"""A gain by which growth goes on at once: were the server at its limit, it could not seem so large."""
_CYCLES, _MOST_CYCLES = 2, 8
"""Rollouts of a window, for each slot; more of them where they differ much."""
_FEW = 16
_MANY = 256
_PRECISION = 0.04
_HOLD_WINDOWS, _LONGEST_HOLD = 8, 64
_SLUMP = 0.7
"""A rate that falls below this share of what it was: the server does not do what it did, and a search begins anew."""


class Ticket(NamedTuple):
    """A rollout that was started."""

    at: float
    window: int


class Estimate(NamedTuple):
    """A rate, in work per second."""

    rate: float
    error: float
    """Relative standard error."""
    spread: float
    """Coefficient of variation of single rollouts."""
    thorough: bool = True
    """Whether every slot has had several rollouts."""


class _Window:
    """Rollouts that were started since the limit is what it is.

    The rate is by Little's law what the slots do: their number, times work by the time that it took. Rollouts that are
    short end first: so the time that others are under way already bounds it from both sides.
    """

    def __init__(
        self, number: int, limit: int, congested: int, *, spread: float = 0.0, before: _Window | None = None
    ) -> None:
        self.number = number
        self.since: int = before.since if before else number
        """The first window of this limit: what was started since then counts when it ends."""
        self.limit = limit
        self.done = 0
        self._congested_before = self._congested = congested
        self._work = self._time = 0.0
        self._work2 = self._time2 = self._work_time = 0.0
        self._spread = spread
        self._running: int = before._running if before else 0
        self._starts: float = before._starts if before else 0.0

    def start(self, now: float) -> None:
        self._running += 1
        self._starts += now

    def finish(self, now: float, started: float, work: float, congested: int) -> None:
        elapsed = now - started
        self._running -= 1
        self._starts -= started
        self.done += 1
        self._congested = congested
        self._work += work
        self._time += elapsed
        self._work2 += work * work
        self._time2 += elapsed * elapsed
        self._work_time += work * elapsed

    @property
    def _share(self) -> float:
        """Return the share of tries that found room."""
        congested = self._congested - self._congested_before
        return (self.done + 1) / (self.done + 1 + congested)

    def estimate(self, now: float) -> Estimate:
        """Return what is measured so far.

        Where rollouts differ, those that are under way are the long ones: their time counts, the more the more they do.
        """
        if not self._work or not self._time:
            return Estimate(0.0, 0.0, 0.0)
        ratio = self._work / self._time
        residuals = self._work2 - 2 * ratio * self._work_time + ratio * ratio * self._time2
        error = math.sqrt(max(residuals, 0.0)) / self._work
        spread = max(error * math.sqrt(self.done), self._spread)
        least, _ = self.bounds(now, 0.0)
        share = min(spread, 1.0)
        rate = (self.limit * ratio * self._share) ** (1 - share) * least**share
        return Estimate(rate, error, spread, self.done >= _CYCLES * self.limit)

    def bounds(self, now: float, work_each: float) -> tuple[float, float]:
        """Return the rate if none of the running rollouts gave anything, and if all of them were over now."""
        if self.done:
            work_each = self._work / self.done
        running = max(self._running * now - self._starts, 0.0)
        time = self._time + running
        if time <= 0:
            return 0.0, math.inf
        least, most = self._work / time, (self._work + self._running * work_each) / time
        return self.limit * least * self._share, self.limit * most * self._share

    @property
    def work_each(self) -> float:
        return self._work / self.done if self.done else 1.0

    @property
    def seen(self) -> int:
        """Return how many rollouts say something about the rate."""
        return self.done + self._running

    @property
    def is_begun(self) -> bool:
        return self.done >= max(self.limit // 4, _FEW // 2)

    def is_long_enough(self, best: _Best, now: float) -> bool:
        """Return whether the estimate may be compared with the best one."""
        error = math.hypot(self.estimate(now).error, best.estimate.error)
        if self.done < max(self.limit, _FEW):
            return False
        if self.limit < _PLAIN_GAIN * best.limit and error <= _PRECISION / 4:
            return True
        if self.done < _CYCLES * self.limit:
            return False
        return error <= _PRECISION or self.done >= max(_MOST_CYCLES * self.limit, _MANY)


@dataclass
class _Best:
    """The best limit that is known, and its neighbours that are known to be worse; None where none is known."""

    limit: int
    estimate: Estimate
    work_each: float
    below: int | None = None
    above: int | None = None
    smaller: int | None = None
    """The best one before, where that was smaller."""


class ConcurrencyController:
    """Finds the number of rollouts at a time that gives the most work per second, and follows it.

    The number doubles as long as that gives more; then the interval between numbers that gave less is narrowed down.
    What was found is held, and its neighbours are tried again now and then; where its rate slumps, the search begins
    anew. The same times and amounts of work always lead to the same numbers: no clock is looked at.
    """

    def __init__(self, *, start: int = START, most: int = MOST) -> None:
        self.most = max(most, 1)
        self.limit = min(start, self.most)
        """Rollouts that are to be under way now."""
        self._busy = 0
        self._starved = False
        self._congested = 0
        self._best: _Best | None = None
        self._growth = _FASTEST_GROWTH
        self._held = 0
        self._hold = _HOLD_WINDOWS
        self._next_up = True
        self._kept_bounds: tuple[int | None, int | None] | None = None
        self._window = _Window(0, self.limit, 0)

    @property
    def best(self) -> int:
        """Return the best number that is known: `limit` may be another one that is tried."""
        return self._best.limit if self._best else self.limit

    def started(self, now: float) -> Ticket:
        """Note that a rollout is started; hand the ticket in with its end."""
        self._busy += 1
        if self._starved and self._busy >= self.limit:
            self._open_window(self.limit, now)
            self._starved = False
        self._window.start(now)
        return Ticket(now, self._window.number)

    def finished(self, now: float, ticket: Ticket, *, work: float, congested: int) -> None:
        """Note that a rollout is over; `limit` may be another one then.

        Args:
            now: Seconds, by the clock that `started` is told.
            ticket: What `started` returned.
            work: What it gave, such as tokens; 0 where it failed.
            congested: Tries so far that a server had no room for, of all rollouts.
        """
        self._busy -= 1
        self._congested = congested
        if ticket.window >= self._window.since:
            self._window.finish(now, ticket.at, work, congested)
        self.look(now)

    def starve(self) -> None:
        """Note that there is no work for a slot: what is measured now says nothing about the server."""
        self._starved = True

    def look(self, now: float) -> None:
        """Decide, where enough is known by now."""
        if self._starved:
            return
        window, best = self._window, self._best
        if best is None:
            self._begin(window, now)
        elif window.limit == best.limit:
            self._measure_again(window, best, now)
        elif (better := self._is_better(window, best, now)) is not None:
            self._move(window, best, now, better=better)

    def _begin(self, window: _Window, now: float) -> None:
        if window.done >= window.limit:
            self._best = _Best(window.limit, window.estimate(now), window.work_each)
            self._try_next(self._best, now)

    def _is_better(self, window: _Window, best: _Best, now: float) -> bool | None:
        """Return whether a limit is better than the best one; None while that cannot be told."""
        gain = self._wanted_gain(window.limit, best)
        wanted = gain * best.estimate.rate
        least, most = window.bounds(now, best.work_each)
        doubt = 2 * math.hypot(best.estimate.spread / math.sqrt(max(window.seen, 1)), best.estimate.error)
        estimate = window.estimate(now)
        # The first to end are the short ones, and those that met the fewest others: what they say is too good.
        if most < wanted * (1 - doubt) or (window.is_begun and estimate.rate < wanted * (1 - doubt)):
            return False
        seems_plain = window.is_begun and estimate.rate > _PLAIN_GAIN * best.estimate.rate * (1 + doubt)
        if window.limit > best.limit and seems_plain and least > wanted * (1 + doubt):
            return True
        if window.is_long_enough(best, now):
            return estimate.rate > wanted
        return None

    @staticmethod
    def _wanted_gain(limit: int, best: _Best) -> float:
        if limit < best.limit:
            return 2 - _GAIN
        return _GAIN_TO_GROW if limit >= _FASTEST_GROWTH * best.limit else _GAIN

    def _move(self, window: _Window, best: _Best, now: float, *, better: bool) -> None:
        if better:
            estimate = window.estimate(now)
            went_up = window.limit > best.limit
            linear = estimate.rate >= _LINEAR * best.estimate.rate * window.limit / best.limit
            below = (window.limit if linear else best.limit) if went_up else best.below
            above = best.above if went_up else best.limit
            smaller = best.limit if went_up else None
            self._best = _Best(window.limit, estimate, window.work_each, below, above, smaller)
            self._hold = _HOLD_WINDOWS
            self._growth = min(self._growth**2, _FASTEST_GROWTH)
        elif self._kept_bounds is not None:  # one neighbour was tried again, and is no better
            best.below, best.above = self._kept_bounds
        elif window.limit > best.limit:
            best.above = window.limit
        else:
            best.below = window.limit
        self._kept_bounds = None
        assert self._best is not None
        if not better and not self._best.estimate.thorough:
            self._open_window(self._best.limit, now)
        else:
            self._try_next(self._best, now)

    def _measure_again(self, window: _Window, best: _Best, now: float) -> None:
        if not window.is_long_enough(best, now):
            return
        before, best.estimate = best.estimate, window.estimate(now)._replace(thorough=True)
        best.work_each = window.work_each
        self._held += 1
        if not before.thorough:
            if best.estimate.rate < before.rate / _GAIN_TO_GROW:  # what was compared with it may have been better
                best.below, best.above = best.smaller or best.below, None
            self._try_next(best, now)
        elif best.estimate.rate < _SLUMP * before.rate:
            self._kept_bounds = None
            self._search_again(best, _FASTEST_GROWTH, now, up=True, down=True)
        elif self._held >= self._hold:
            self._hold = min(2 * self._hold, _LONGEST_HOLD)
            self._kept_bounds = best.below, best.above
            self._search_again(best, _SLOW_GROWTH, now, up=self._next_up, down=not self._next_up)
            self._next_up = not self._next_up
        else:
            self._open_window(best.limit, now)

    def _search_again(self, best: _Best, growth: float, now: float, *, up: bool, down: bool) -> None:
        self._growth = growth
        best.above = None if up else best.above
        best.below = None if down else best.below
        self._try_next(best, now)

    def _try_next(self, best: _Best, now: float) -> None:
        self._held = 0
        self._open_window(self._candidate(best) or best.limit, now)

    def _candidate(self, best: _Best) -> int | None:
        """Return the limit to try next; None where the best is known."""
        if best.above is None and best.below is not None and best.limit >= _KNEE * best.below:
            return round(math.sqrt(best.limit * best.below))  # it gave less than twice as much: the knee lies between
        if best.above is None and best.limit < self.most:
            return min(max(round(best.limit * self._growth), best.limit + 1), self.most)
        if best.below is None and best.limit > 1:
            return max(min(round(best.limit / self._growth), best.limit - 1), 1)
        up, down = (best.above or best.limit) / best.limit, best.limit / (best.below or best.limit)
        bound = best.above if up >= down else best.below
        middle = round(math.sqrt(best.limit * (bound or best.limit)))
        if max(up, down) <= _RESOLUTION or middle in (best.limit, bound):
            return None
        return middle

    def _open_window(self, limit: int, now: float) -> None:
        before, self.limit = self._window, limit
        same = before if limit == before.limit and not self._starved else None
        # The first to end are alike: how much rollouts differ is better known from windows before.
        spread = 0.9 * before.estimate(now).spread
        self._window = _Window(before.number + 1, limit, self._congested, spread=spread, before=same)


def most_at_a_time() -> int:
    """Return how many rollouts this process may have under way: by files it may open, and by free memory."""
    import psutil  # which `--help` does without

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_files = MOST if files == resource.RLIM_INFINITY else files - _SPARE_FILES
    by_memory = psutil.virtual_memory().available // _BYTES_EACH
    return max(START, min(MOST, by_files, by_memory))
