"""Importers of rollout files that other tools wrote: they recognize a row by its content, and convert it to records.

The tool that wrote a file is its producer; so an importer is registered under the name of its tool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol

from rollmill.files.rows import Row
from rollmill.registry import Entry, Registry


class RowOrigin(NamedTuple):
    """The file and position of a row, from which an id is generated where its producer writes none."""

    file_stem: str
    """Name of the file, without suffixes."""
    number: int
    """1-based position of the row in the file."""
    alone: bool
    """True if the file has no other row."""
    path: str = ""
    """Path of the file, beside which some tools write their verdicts; empty: nothing is read beside the row."""

    @property
    def generated_id(self) -> str:
        """An id for a rollout that has none."""
        return self.file_stem if self.alone else f"{self.file_stem}-{self.number}"


class Producer(Protocol):
    """An importer: recognizes rows of one tool, and converts them to records."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a decoded row was written by this tool.

        Must be False for rollmill's own rows, which have an `instance_id` and a `reward`, `success`, `error` or
        `verdict` beside the conversation: `find_producer` has no test for these.
        """
        ...

    def rollouts(self, document: Any, origin: RowOrigin) -> Iterator[Row]:
        """Yield the rollouts of a row, with the fields of `record.Record`; a null field counts as missing.

        The conversation is `messages`, or `prompt` and `completion`; `reward`, `success` and others are optional.
        """
        ...


@dataclass(frozen=True)
class ProducerEntry(Entry):
    """The declaration of a producer in its module."""

    last: bool = field(default=False, kw_only=True)
    """True if it is tried after the others, because its tests are weak, and also match other tools' rows."""


PRODUCERS = Registry("producer", "rollmill.corpus.producers", ProducerEntry)
"""All producers by name; a module adds one by its `ENTRY`, an installed package by an entry point."""


@cache
def all_producers() -> tuple[Producer, ...]:
    """Return all producers in the order in which they are tried: by name, those that are `last` at the end.

    The order matters only for a row that several recognize.
    """
    entries = sorted(PRODUCERS.values(), key=lambda entry: entry.last)
    return tuple(PRODUCERS.load(entry.name)() for entry in entries)


def find_producer(document: Any) -> Producer | None:
    """Return the producer that recognizes a decoded row; None for rollmill's own rows, and those of no known form."""
    return next((producer for producer in all_producers() if producer.recognizes(document)), None)
