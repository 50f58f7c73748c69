"""Waiting times before a request is sent again."""

from __future__ import annotations

import email.utils
import random
import time

_LONGEST_BACKOFF_S = 30.0
_LONGEST_RETRY_AFTER_S = 600.0


def backoff_s(retry: int) -> float:
    """Return the seconds to wait before retry number `retry`, counted from 0.

    They are 1, 2, 4, ..., at most 30, less a random share of up to 25%.
    """
    longest: float = min(_LONGEST_BACKOFF_S, 2.0 ** min(retry, 10))
    return longest * random.uniform(0.75, 1.0)


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header: a number or an HTTP date (RFC 9110, 10.2.3); None for neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError):
            return None  # not a possible date: a header may have years and offsets of any length
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # not for NaN
