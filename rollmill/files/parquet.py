"""Open Parquet files, local or remote, also ones inside a compressed file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rollmill.errors import InputError
from rollmill.files.io import is_compressed, open_binary, why_unread


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """Open a `pyarrow.parquet.ParquetFile`.

    Raises `InputError` where it cannot be opened or, inside the block, read.
    """
    import pyarrow.parquet as pq

    try:
        with open_binary(path) as file:
            if not is_compressed(path):
                yield pq.ParquetFile(file)
                return
            # Parquet is read from its end, which a compressed stream cannot seek to: decompress it first.
            with tempfile.TemporaryFile() as decompressed:
                shutil.copyfileobj(file, decompressed)
                yield pq.ParquetFile(decompressed)
    except InputError:
        raise
    except Exception as error:  # Arrow has its own exceptions
        raise InputError(f"cannot read {path}: {why_unread(error)}") from error
