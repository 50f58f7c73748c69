"""Where requests go: the live endpoint with the fewest outstanding requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rollmill.errors import ServingError

_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
_FAILURES_IN_A_ROW = 3


@dataclass(eq=False)
class Endpoint:
    """One OpenAI-compatible server.

    A server's watcher, in another thread, sets `recovering` and `gone`; everything else belongs to the event loop.
    """

    base_url: str
    """Ends in `/v1`."""
    recovering: bool = False
    """Being restarted: worth waiting for."""
    gone: str | None = None
    """Why it will not come back."""
    outstanding: int = 0
    failures: int = 0
    """Requests in a row that failed on the way."""
    rests_until: float = 0.0
    """Taken out until then, in `time.monotonic` seconds."""

    def usable(self, now: float) -> bool:
        """Whether a request may be sent now."""
        return self.gone is None and not self.recovering and now >= self.rests_until

    def failed(self, *, refused: bool) -> None:
        """A request failed on the way: take the endpoint out when it refused, or when it happened often in a row."""
        now = time.monotonic()
        if now < self.rests_until:
            return  # one of many that failed together: counted already
        self.failures += 1
        count = self.failures if refused else self.failures - _FAILURES_IN_A_ROW + 1
        if count > 0:
            self.rests_until = now + min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** min(count - 1, 8))

    def answered(self) -> None:
        """The endpoint answered, whatever it said."""
        self.failures = 0
        self.rests_until = 0.0


class EndpointPool:
    """Balances requests over endpoints by outstanding requests; used from one event loop."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            raise ValueError("a pool needs at least one endpoint")
        self.endpoints = tuple(endpoints)

    def pick(self) -> Endpoint | None:
        """The usable endpoint with the fewest outstanding requests, if any is usable now."""
        now = time.monotonic()
        best: Endpoint | None = None
        for endpoint in self.endpoints:
            if endpoint.usable(now) and (best is None or endpoint.outstanding < best.outstanding):
                best = endpoint
        return best

    async def acquire(self) -> Endpoint:
        """Waits for a usable endpoint. Raises `ServingError` when every one is gone for good."""
        while (endpoint := self.pick()) is None:
            if all(endpoint.gone is not None for endpoint in self.endpoints):
                raise ServingError("; ".join(f"{e.base_url}: {e.gone}" for e in self.endpoints))
            await asyncio.sleep(0.05)
        endpoint.outstanding += 1
        return endpoint

    def release(self, endpoint: Endpoint) -> None:
        """The request is over, well or not."""
        endpoint.outstanding -= 1
