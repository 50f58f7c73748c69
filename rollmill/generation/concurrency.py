"""Automatic concurrency: find the number of rollouts in flight with the highest throughput, while generating.

The controller is a hill climb over the concurrency limit. It measures the throughput of the current limit in a window
of rollouts, doubles the limit as long as that pays, then bisects (geometrically) between the best limit and neighbours
that are known to be worse. Throughput is noisy, so that limits are compared with confidence intervals.
"""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema

AUTO: Literal["auto"] = "auto"
PLANNED = 64
"""The concurrency that shard sizes and projections assume while the best one is not known."""

Concurrency = Annotated[
    Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"],
    BeforeValidator(lambda value: AUTO if value in (0, "0") else value),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 65_536}),
]
"""Rollouts in flight: a number, or `auto` for the highest throughput. Forms have number fields only: 0 is `auto`."""
AS_FOUND = "; auto (in forms 0): as many as give the most tokens/s"
"""The end of the description of every parameter of this type."""


def problems_at_a_time(concurrency: Concurrency, num_rollout: int) -> Concurrency:
    """Return the concurrency in problems, of `num_rollout` rollouts each: at least 1, or `auto`."""
    return AUTO if concurrency == AUTO else max(1, concurrency // num_rollout)


START = 8
"""The first limit of a search: low enough for any server, and doubled within seconds on a large one."""
MOST = 4096
_SPARE_FILES = 256
"""File descriptors that are left for everything but connections."""
_BYTES_EACH = 4 << 20
"""Memory per rollout in flight: prompt, response, and the client's connection buffers."""

_FASTEST_GROWTH = 2.0
_SLOW_GROWTH = 2**0.25
_RESOLUTION = 1.12
"""The search ends when both neighbours that are known to be worse are within this factor of the best limit."""
_GAIN_TO_GROW = 1.05
"""Relative throughput that a doubled limit must reach to be accepted."""
_GAIN = 1.02
"""The same for a slightly higher limit; a lower limit is accepted where it loses no more than this."""
_LINEAR = 0.9
"""Growth counts as linear where throughput per slot keeps at least this share."""
_KNEE = 1.9
"""From this ratio of limits on, the throughput curve is probed between them."""
_PLAIN_GAIN = 1.5
"""A gain that is accepted at once, before a whole window: a saturated server cannot look so much faster."""
_CYCLES, _MOST_CYCLES = 2, 8
"""Least and most rollouts per slot in a window; the noisier they are, the more are needed."""
_FEW = 16
_MANY = 256
_PRECISION = 0.04
"""Relative standard error of the comparison at which a window is long enough."""
_HOLD_WINDOWS, _LONGEST_HOLD = 8, 64
"""Windows at the best limit before its neighbours are tried again; doubled each time."""
_SLUMP = 0.7
"""A throughput below this share of the earlier one means that the server has changed: the search begins again."""


class Ticket(NamedTuple):
    """The start of one rollout, to be handed back when it ends."""

    at: float
    """Seconds, by the caller's clock."""
    window: int
    """Number of the window in which it started."""


class Estimate(NamedTuple):
    """A throughput estimate."""

    rate: float
    """Work (tokens) per second of all slots together."""
    error: float
    """Relative standard error."""
    spread: float
    """Coefficient of variation over single rollouts."""
    thorough: bool = True
    """Whether every slot has finished several rollouts."""


class _Window:
    """Measures throughput over the rollouts that started under the current limit.

    By Little's law throughput is the number of slots times work per slot-second. Short rollouts end first, which
    biases an early estimate upwards; the elapsed time of those still running bounds it from both sides.

    Args:
        number: Of the window, counted from 0.
        limit: Rollouts in flight during the window.
        congested: Requests refused by servers at capacity before the window, a running total.
        spread: Lower bound of the coefficient of variation, from earlier windows.
        before: The window before with the same limit, whose running rollouts count for this one too.
    """

    def __init__(
        self, number: int, limit: int, congested: int, *, spread: float = 0.0, before: _Window | None = None
    ) -> None:
        self.number = number
        self.since: int = before.since if before else number
        """The first window of this limit: rollouts that started since then count when they end."""
        self.limit = limit
        self.done = 0
        self._congested_before = self._congested = congested
        # Sums over finished rollouts: work, seconds, their squares and product, for the ratio estimator.
        self._work = self._time = 0.0
        self._work2 = self._time2 = self._work_time = 0.0
        self._spread = spread
        # Count and sum of start times of running rollouts: their total elapsed time is count * now - sum.
        self._running: int = before._running if before else 0
        self._starts: float = before._starts if before else 0.0

    def start(self, now: float) -> None:
        """Count a rollout that starts."""
        self._running += 1
        self._starts += now

    def finish(self, now: float, started: float, work: float, congested: int) -> None:
        """Add a finished rollout to the sums.

        Args:
            now: Seconds.
            started: Seconds, when the rollout started.
            work: Tokens, or 0 for a failed rollout.
            congested: Running total of requests refused by servers at capacity.
        """
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
        """Return the share of requests that no server refused for lack of capacity."""
        congested = self._congested - self._congested_before
        return (self.done + 1) / (self.done + 1 + congested)

    def estimate(self, now: float) -> Estimate:
        """Return the throughput measured so far.

        The more rollouts vary in length, the more weight the lower bound gets, which counts the time of running ones:
        those are the long ones.
        """
        if not self._work or not self._time:
            return Estimate(0.0, 0.0, 0.0)
        ratio = self._work / self._time
        # Ratio estimator: sum of (work - ratio * time)**2, expanded, gives its standard error.
        residuals = self._work2 - 2 * ratio * self._work_time + ratio * ratio * self._time2
        error = math.sqrt(max(residuals, 0.0)) / self._work
        spread = max(error * math.sqrt(self.done), self._spread)
        least, _ = self.bounds(now, 0.0)
        share = min(spread, 1.0)
        # Geometric interpolation between the plain ratio and the lower bound.
        rate = (self.limit * ratio * self._share) ** (1 - share) * least**share
        return Estimate(rate, error, spread, self.done >= _CYCLES * self.limit)

    def bounds(self, now: float, work_each: float) -> tuple[float, float]:
        """Return lower and upper bounds of the throughput: running rollouts yield nothing, or all end now.

        `work_each` is the work assumed for a running rollout while none has finished.
        """
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
        """Return the mean work of a finished rollout."""
        return self._work / self.done if self.done else 1.0

    @property
    def seen(self) -> int:
        """Return the number of rollouts that the bounds are based on."""
        return self.done + self._running

    @property
    def is_begun(self) -> bool:
        """Return whether enough rollouts have finished for a first look at the estimate."""
        return self.done >= max(self.limit // 4, _FEW // 2)

    def is_long_enough(self, best: _Best, now: float) -> bool:
        """Return whether the estimate is precise enough to be compared with the best one."""
        # Standard errors of independent estimates add in quadrature.
        error = math.hypot(self.estimate(now).error, best.estimate.error)
        if self.done < max(self.limit, _FEW):
            return False
        if self.limit < _PLAIN_GAIN * best.limit and error <= _PRECISION / 4:
            return True  # rollouts of nearly equal length: one per slot is enough
        if self.done < _CYCLES * self.limit:
            return False
        return error <= _PRECISION or self.done >= max(_MOST_CYCLES * self.limit, _MANY)


@dataclass
class _Best:
    """The best limit so far, and the nearest lower and higher limits known to be worse; None where none is known."""

    limit: int
    estimate: Estimate
    work_each: float
    below: int | None = None
    above: int | None = None
    smaller: int | None = None
    """The best limit before this one, where that was lower."""


class ConcurrencyController:
    """Searches for the concurrency limit with the highest throughput, and adapts when the server changes.

    The limit doubles as long as throughput rises; then the interval between limits known to be worse is narrowed down.
    The best limit is kept, and its neighbours are tried again now and then; where its throughput slumps, the search
    begins again. Deterministic: the caller passes all times, no clock is read.
    """

    def __init__(self, *, start: int = START, most: int = MOST) -> None:
        self.most = max(most, 1)
        self.limit = min(start, self.most)
        """Rollouts that should be in flight now."""
        self._busy = 0
        self._starved = False
        self._congested = 0
        self._best: _Best | None = None
        self._growth = _FASTEST_GROWTH
        self._windows_at_best = 0
        self._patience = _HOLD_WINDOWS
        """Windows at the best limit before one of its neighbours is tried again."""
        self._next_up = True
        """Whether the next neighbour to try again is the higher one."""
        self._kept_bounds: tuple[int | None, int | None] | None = None
        """The neighbours before one was tried again; restored where it is no better."""
        self._window = _Window(0, self.limit, 0)

    @property
    def best(self) -> int:
        """Return the best limit so far; `limit` may be another one that is being tried."""
        return self._best.limit if self._best else self.limit

    def started(self, now: float) -> Ticket:
        """Record the start of a rollout at `now` seconds; pass the ticket to `finished`."""
        self._busy += 1
        # All slots have work again: what was measured while some were idle is discarded.
        if self._starved and self._busy >= self.limit:
            self._open_window(self.limit, now)
            self._starved = False
        self._window.start(now)
        return Ticket(now, self._window.number)

    def finished(self, now: float, ticket: Ticket, *, work: float, congested: int) -> None:
        """Record the end of a rollout; this may change `limit`.

        Args:
            now: Seconds, by the same clock as for `started`.
            ticket: The value that `started` returned.
            work: Tokens generated; 0 where the rollout failed.
            congested: Running total of requests that servers refused for lack of capacity.
        """
        self._busy -= 1
        self._congested = congested
        if ticket.window >= self._window.since:
            self._window.finish(now, ticket.at, work, congested)
        self.look(now)

    def starve(self) -> None:
        """Record that a slot is idle for lack of work: throughput then does not measure the server."""
        self._starved = True

    def look(self, now: float) -> None:
        """Change `limit` if the measurements up to `now` allow a decision."""
        if self._starved:
            return
        window, best = self._window, self._best
        if best is None:
            self._begin(window, now)
        elif window.limit == best.limit:
            self._remeasure_best(window, best, now)
        elif (better := self._is_better(window, best, now)) is not None:
            self._accept_or_reject(window, best, now, better=better)

    def _begin(self, window: _Window, now: float) -> None:
        if window.done >= window.limit:
            self._best = _Best(window.limit, window.estimate(now), window.work_each)
            self._try_next(self._best, now)

    def _is_better(self, window: _Window, best: _Best, now: float) -> bool | None:
        """Return whether the window's limit is better than the best one; None while that is undecided."""
        threshold = self._required_gain(window.limit, best) * best.estimate.rate
        least, most = window.bounds(now, best.work_each)
        # Two standard errors of the comparison: an early decision needs a difference larger than that.
        doubt = 2 * math.hypot(best.estimate.spread / math.sqrt(max(window.seen, 1)), best.estimate.error)
        estimate = window.estimate(now)
        # Early estimates are biased upwards: short rollouts, and those with few neighbours, end first. So a bad early
        # estimate is enough to reject, but to accept early the lower bound must be above the threshold, too.
        if most < threshold * (1 - doubt) or (window.is_begun and estimate.rate < threshold * (1 - doubt)):
            return False
        seems_plain = window.is_begun and estimate.rate > _PLAIN_GAIN * best.estimate.rate * (1 + doubt)
        if window.limit > best.limit and seems_plain and least > threshold * (1 + doubt):
            return True
        if window.is_long_enough(best, now):
            return estimate.rate > threshold
        return None

    @staticmethod
    def _required_gain(limit: int, best: _Best) -> float:
        if limit < best.limit:
            return 2 - _GAIN  # a lower limit may lose a little: it costs less memory and latency
        return _GAIN_TO_GROW if limit >= _FASTEST_GROWTH * best.limit else _GAIN

    def _accept_or_reject(self, window: _Window, best: _Best, now: float, *, better: bool) -> None:
        """Make the window's limit the best one, or a bound of the search, and go on to the next limit.

        Args:
            window: The measurements of the limit that was tried.
            best: The best limit before.
            now: Seconds.
            better: Whether the limit that was tried is the better one.
        """
        if better:
            estimate = window.estimate(now)
            went_up = window.limit > best.limit
            # Growth below linear means that the knee of the curve may lie between the old and the new limit.
            linear = estimate.rate >= _LINEAR * best.estimate.rate * window.limit / best.limit
            below = (window.limit if linear else best.limit) if went_up else best.below
            above = best.above if went_up else best.limit
            smaller = best.limit if went_up else None
            self._best = _Best(window.limit, estimate, window.work_each, below, above, smaller)
            self._patience = _HOLD_WINDOWS
            # Success after a slow restart: grow faster again.
            self._growth = min(self._growth**2, _FASTEST_GROWTH)
        elif self._kept_bounds is not None:  # a neighbour was tried again, and is still no better
            best.below, best.above = self._kept_bounds
        elif window.limit > best.limit:
            best.above = window.limit
        else:
            best.below = window.limit
        self._kept_bounds = None
        assert self._best is not None
        if not better and not self._best.estimate.thorough:
            # The best limit was accepted early: measure it properly before anything else is compared with it.
            self._open_window(self._best.limit, now)
        else:
            self._try_next(self._best, now)

    def _remeasure_best(self, window: _Window, best: _Best, now: float) -> None:
        if not window.is_long_enough(best, now):
            return
        before, best.estimate = best.estimate, window.estimate(now)._replace(thorough=True)
        best.work_each = window.work_each
        self._windows_at_best += 1
        if not before.thorough:
            if best.estimate.rate < before.rate / _GAIN_TO_GROW:  # limits rejected against the old rate may be better
                best.below, best.above = best.smaller or best.below, None
            self._try_next(best, now)
        elif best.estimate.rate < _SLUMP * before.rate:
            self._kept_bounds = None
            self._restart_search(best, _FASTEST_GROWTH, now, up=True, down=True)
        elif self._windows_at_best >= self._patience:
            self._patience = min(2 * self._patience, _LONGEST_HOLD)
            self._kept_bounds = best.below, best.above
            self._restart_search(best, _SLOW_GROWTH, now, up=self._next_up, down=not self._next_up)
            self._next_up = not self._next_up
        else:
            self._open_window(best.limit, now)

    def _restart_search(self, best: _Best, growth: float, now: float, *, up: bool, down: bool) -> None:
        """Forget known bounds and search from the best limit again.

        Args:
            best: Where the search restarts.
            growth: Factor from one limit to the next.
            now: Seconds.
            up: Whether to try higher limits.
            down: Whether to try lower limits.
        """
        self._growth = growth
        best.above = None if up else best.above
        best.below = None if down else best.below
        self._try_next(best, now)

    def _try_next(self, best: _Best, now: float) -> None:
        self._windows_at_best = 0
        self._open_window(self._candidate(best) or best.limit, now)

    def _candidate(self, best: _Best) -> int | None:
        """Return the limit to try next; None where the search has converged."""
        if best.above is None and best.below is not None and best.limit >= _KNEE * best.below:
            # Doubling gave less than double the throughput: the knee of the curve lies between the two.
            return round(math.sqrt(best.limit * best.below))
        if best.above is None and best.limit < self.most:
            return min(max(round(best.limit * self._growth), best.limit + 1), self.most)
        if best.below is None and best.limit > 1:
            return max(min(round(best.limit / self._growth), best.limit - 1), 1)
        # Both bounds are known (or the limit is at its end): bisect the wider side, geometrically.
        up, down = (best.above or best.limit) / best.limit, best.limit / (best.below or best.limit)
        bound = best.above if up >= down else best.below
        middle = round(math.sqrt(best.limit * (bound or best.limit)))
        if max(up, down) <= _RESOLUTION or middle in (best.limit, bound):
            return None
        return middle

    def _open_window(self, limit: int, now: float) -> None:
        before, self.limit = self._window, limit
        same = before if limit == before.limit and not self._starved else None
        # The first rollouts to end are similar in length, which underestimates the spread: start from the last one.
        spread = 0.9 * before.estimate(now).spread
        self._window = _Window(before.number + 1, limit, self._congested, spread=spread, before=same)


def most_at_a_time() -> int:
    """Return the highest concurrency this process can sustain: bounded by open files and by free memory."""
    import psutil  # late: `--help` does not need it

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_files = MOST if files == resource.RLIM_INFINITY else files - _SPARE_FILES
    by_memory = psutil.virtual_memory().available // _BYTES_EACH
    return max(START, min(MOST, by_files, by_memory))
