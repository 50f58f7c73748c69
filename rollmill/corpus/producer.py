"""What a producer is: a tool whose files of rollouts are read by what they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol

from rollmill.files.rows import Row
from rollmill.registry import Entry, Registry


class RowOrigin(NamedTuple):
    """Where a row comes from: what ids are made of where a producer writes none."""

    name: str
    """The file's, without endings."""
    number: int
    """1-based: the row's in the file."""
    alone: bool
    """Whether the file is one document."""
    path: str = ""
    """The file's; some tools write their verdicts beside it."""

    @property
    def made_id(self) -> str:
        """An id for a rollout that has none."""
        return self.name if self.alone else f"{self.name}-{self.number}"


class Producer(Protocol):
    """Tells rows of one tool by their own marks, and makes records of them."""

    def is_one(self, document: Any) -> bool:
        """Return whether a decoded row is this tool's."""
        ...

    def rollouts(self, document: Any, origin: RowOrigin) -> Iterator[Row]:
        """Yield a row's rollouts, as `record.Record` has them; null fields are as good as none."""
        ...


@dataclass(frozen=True)
class ProducerEntry(Entry):
    """What a module declares of the tool whose rows it reads."""

    last: bool = field(default=False, kw_only=True)
    """Whether others are asked first: its marks are few, and rows of others may have them, too."""


PRODUCERS = Registry("producer", "rollmill.corpus.producers", ProducerEntry)
"""All producers by name; a module adds one by its `ENTRY`, an installed package by an entry point."""


@cache
def all_producers() -> tuple[Producer, ...]:
    """Return all producers in the order in which they are asked."""
    entries = sorted(PRODUCERS.values(), key=lambda entry: entry.last)
    return tuple(PRODUCERS.load(entry.name)() for entry in entries)


def find_producer(document: Any) -> Producer | None:
    """Return the producer whose row it is; None for this project's own, and those of no known form."""
    return next((producer for producer in all_producers() if producer.is_one(document)), None)
