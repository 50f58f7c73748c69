"""Read rows from Arrow record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rollmill.files.rows import BadRow, Row

BATCH_ROWS = 64
"""Rows in memory at a time: few, because a row may contain images of megabytes."""

ToRows = Callable[[Any], list[Row]]


def _as_python(batch: Any) -> list[Row]:
    return list(batch.to_pylist())


def read_batches(batches: Iterable[Any], to_rows: ToRows = _as_python) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (position from 1, row) of Arrow record batches or tables; images are not decoded.

    `to_rows` converts one batch, and raises `ValueError` or `OverflowError` if one of its rows cannot be converted.
    """
    position = 0
    for batch in batches:
        for row in _read_batch(batch, to_rows):
            position += 1
            yield position, row._replace(number=position) if isinstance(row, BadRow) else row


def _read_batch(batch: Any, to_rows: ToRows) -> list[Row | BadRow]:
    try:
        return list(to_rows(batch))
    except (ValueError, OverflowError) as error:  # text that is not UTF-8, a date out of range: convert row by row
        if batch.num_rows == 1:
            return [BadRow(0, None, f"cannot be read: {error}", f"columns {', '.join(batch.schema.names)}")]
        return [row for start in range(batch.num_rows) for row in _read_batch(batch.slice(start, 1), to_rows)]
