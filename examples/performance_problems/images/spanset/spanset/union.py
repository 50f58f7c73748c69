"""The union of many spans."""

from __future__ import annotations

from collections.abc import Iterable

from spanset.span import Span


def merge(spans: Iterable[Span]) -> list[Span]:
    """The union as spans that neither overlap nor touch, in ascending order.

    Raises `ValueError` for a span that stops before it starts.
    """
    merged: list[Span] = []
    for span in spans:
        if span.stop < span.start:
            raise ValueError(f"{span} stops before it starts")
        if span.start == span.stop:
            continue
        apart = []
        for other in merged:
            if span.meets(other):
                span = span.joined(other)
            else:
                apart.append(other)
        apart.append(span)
        merged = sorted(apart)
    return merged


def total(spans: Iterable[Span]) -> int:
    """How many integers lie in at least one of the spans."""
    return sum(span.length for span in merge(spans))
