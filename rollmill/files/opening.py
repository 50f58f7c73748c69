"""Opening files: local or remote, plain or compressed, one way for all readers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import fsspec
import fsspec.compression
from fsspec.utils import infer_compression

from rollmill.errors import InputError

_BUFFER = 1 << 20  # lines of tens of kilobytes, read with Python's 8 kB, cost seven times as much
_REMOTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*(://|::)")


def _open_zstd(file: BinaryIO, mode: str = "rb") -> io.BufferedReader:
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


# fsspec knows .zst only where one of two optional packages is installed; without them it would hand out packed bytes.
if "zstd" not in fsspec.compression.compr:
    fsspec.compression.register_compression("zstd", _open_zstd, "zst")


def is_remote(path: str) -> bool:
    """Whether a path is a URL of fsspec's."""
    return _REMOTE.match(path) is not None


def is_packed(path: str) -> bool:
    """Whether a path's name says that it is compressed."""
    return infer_compression(path) is not None


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """Opens a local path or any fsspec URL for reading; `.gz`, `.zst`, `.xz`, `.bz2` are read through.

    Raises `InputError` where the file cannot be opened or, inside the block, read.
    """
    try:
        if is_remote(path) or is_packed(path):
            with fsspec.open(path, "rb", compression="infer") as file:
                yield cast(BinaryIO, io.BufferedReader(file, _BUFFER))
        else:
            with open(path, "rb", buffering=_BUFFER) as file:  # noqa: PTH123  # the path is as the user wrote it
                yield file
    except InputError:
        raise
    except Exception as error:  # every file system and decompressor raises types of its own
        raise InputError(f"cannot read {path}: {error}") from error
