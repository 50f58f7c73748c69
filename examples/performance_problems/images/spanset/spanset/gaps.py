"""What lies between spans."""

from __future__ import annotations

from collections.abc import Iterable

from spanset.span import Span
from spanset.union import merge


def gaps(spans: Iterable[Span], within: Span) -> list[Span]:
    """The spans of `within` that none of `spans` touches upon, in ascending order."""
    free = []
    position = within.start
    for span in merge(spans):
        if span.stop <= within.start:
            continue
        if span.start >= within.stop:
            break
        if position < span.start:
            free.append(Span(position, span.start))
        position = span.stop
    if position < within.stop:
        free.append(Span(position, within.stop))
    return free
