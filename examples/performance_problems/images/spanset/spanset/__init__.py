"""Sets of half-open integer spans."""

from spanset.gaps import gaps
from spanset.span import Span
from spanset.union import merge, total

__all__ = ["Span", "gaps", "merge", "total"]
