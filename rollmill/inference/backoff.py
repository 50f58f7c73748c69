"""How long to wait before a request is sent again."""

from __future__ import annotations

import email.utils
import random
import time

_LONGEST_BACKOFF_S = 30.0
_LONGEST_RETRY_AFTER_S = 600.0


def backoff_s(retry: int) -> float:
    """Return seconds to wait before the `retry`-th retry (0-based).

    They are 1, 2, 4, ..., at most 30, with up to 25% taken off.
    """
    longest: float = min(_LONGEST_BACKOFF_S, 2.0 ** min(retry, 10))
    return longest * random.uniform(0.75, 1.0)


def parse_retry_after(value: str | None) -> float | None:
    """Return seconds that a `Retry-After` header asks for, as a number or as an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError):
            return None  # no date that there can be: years and offsets of any length stand in a server's header
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if seconds == seconds else None
