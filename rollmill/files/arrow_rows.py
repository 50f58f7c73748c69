"""Arrow batches as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rollmill.files.rows import BadRow, Row

BATCH_ROWS = 64
"""Rows held at once: few, because a row may hold images of megabytes."""


def read_batches(batches: Iterable[Any]) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields (1-based position, row) of Arrow record batches or tables, images undecoded."""
    position = 0
    for batch in batches:
        for row in _read_batch(batch):
            position += 1
            yield position, row._replace(number=position) if isinstance(row, BadRow) else row


def _read_batch(batch: Any) -> list[Row | BadRow]:
    try:
        return list(batch.to_pylist())
    except ValueError as error:  # text that is not UTF-8, a date beyond Python's: find the row
        if batch.num_rows == 1:
            return [BadRow(0, None, f"cannot be read: {error}", f"columns {', '.join(batch.schema.names)}")]
        return [row for start in range(batch.num_rows) for row in _read_batch(batch.slice(start, 1))]
