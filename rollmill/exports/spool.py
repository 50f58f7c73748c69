"""Spool: records in another order than the one in which they can be read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from rollmill.exports.origins import rollouts

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus


class Spool:
    """Records copied into a file that has no name, and where each stands in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0

    def add(self, row: int, record: bytes) -> None:
        """Takes the record of one row of the table."""
        self._places[row] = (self._end, len(record))
        self._end += self._file.write(record)

    def read(self, row: int) -> bytes:
        """A record that was taken."""
        offset, length = self._places[row]
        self._file.seek(offset)
        return self._file.read(length)


@contextmanager
def open_spool(corpus: Corpus, table: pl.DataFrame, folder: Path) -> Iterator[Spool]:
    """The records of `table`, which is sorted by `row`, on the disk of `folder` until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        spool = Spool(file)
        for facts, record in rollouts(corpus, table, ["row"]):
            spool.add(facts["row"], record)
        yield spool
