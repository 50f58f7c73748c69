"""Producers: tools whose files of rollouts are recognized by their content, and read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol

from rollmill.files.rows import Row
from rollmill.registry import Entry, Registry


class RowOrigin(NamedTuple):
    """The file and position of a row, from which an id is generated where its producer writes none."""

    name: str
    """Name of the file, without suffixes."""
    number: int
    """1-based position of the row in the file."""
    alone: bool
    """True if the file has no other row."""
    path: str = ""
    """Path of the file; some tools write their verdicts beside it."""

    @property
    def generated_id(self) -> str:
        """An id for a rollout that has none."""
        return self.name if self.alone else f"{self.name}-{self.number}"


class Producer(Protocol):
    """Recognizes rows of one tool, and converts them to records."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a decoded row was written by this tool."""
        ...

    def rollouts(self, document: Any, origin: RowOrigin) -> Iterator[Row]:
        """Yield the rollouts of a row, with the fields of `record.Record`; a null field counts as missing."""
        ...


@dataclass(frozen=True)
class ProducerEntry(Entry):
    """The declaration of a producer in its module."""

    last: bool = field(default=False, kw_only=True)
    """True if it is tried after the others: rows of others may have its few distinctive fields, too."""


PRODUCERS = Registry("producer", "rollmill.corpus.producers", ProducerEntry)
"""All producers by name; a module adds one by its `ENTRY`, an installed package by an entry point."""


@cache
def all_producers() -> tuple[Producer, ...]:
    """Return all producers in the order in which they are tried."""
    entries = sorted(PRODUCERS.values(), key=lambda entry: entry.last)
    return tuple(PRODUCERS.load(entry.name)() for entry in entries)


def find_producer(document: Any) -> Producer | None:
    """Return the producer that wrote a decoded row; None for this project's own rows, and those of no known form."""
    return next((producer for producer in all_producers() if producer.recognizes(document)), None)
