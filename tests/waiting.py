"""Wait for conditions in other processes and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout: float = 60.0, *, every: float = 0.05) -> None:
    """Wait for a condition to hold, asked every so many seconds; fail where it does not in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


async def async_wait_until(condition: Callable[[], object], timeout: float = 60.0, *, every: float = 0.01) -> None:
    """The same while the event loop goes on."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(every)
