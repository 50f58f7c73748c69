"""Open files for reading: local or remote, plain or compressed."""

from __future__ import annotations

import functools
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from rollmill.errors import InputError
from rollmill.files.remote import is_remote

_BUFFER = 1 << 20  # with Python's default of 8 kB, reading lines of tens of kilobytes takes seven times as long


MOST_MEMORY = 128 << 20
"""Bytes of memory for the window or dictionary of a compressed file; `xz -9` needs 65 MiB.

For zstd, Arrow has the same limit. gzip never needs more than 1 MB, bzip2 never more than 10 MB.
"""

_NO_MEMORY = ("too much memory", "memory usage limit", "window too large")  # zstd, xz
_ADVICE = "compress it with a smaller window (zstd without --long or --ultra, xz -9 or less), or decompress it first"


class _XzFile(io.RawIOBase):
    """Reads `.xz` and `.lzma` with concatenated streams, within `MOST_MEMORY`: `lzma.LZMAFile` has no memory limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream: lzma.LZMADecompressor | None = None
        self._compressed = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Decompress into a buffer. Raises `lzma.LZMAError`, and `EOFError` where the file is cut off."""
        while self._stream or self._next_stream():
            assert self._stream is not None
            compressed = self._read_compressed() if self._stream.needs_input else b""
            if self._stream.needs_input and not compressed:
                raise EOFError("it is cut off")
            decompressed = self._stream.decompress(compressed, len(buffer))
            if self._stream.eof:
                self._compressed, self._stream = self._stream.unused_data, None
            if decompressed:
                buffer[: len(decompressed)] = decompressed
                return len(decompressed)
        return 0

    def _read_compressed(self) -> bytes:
        compressed, self._compressed = self._compressed, b""
        return compressed or self._file.read(_BUFFER)

    def _next_stream(self) -> bool:
        """Begin the next stream; return whether there is one. Zero bytes between streams are padding."""
        while compressed := self._read_compressed():
            self._compressed = compressed.lstrip(b"\0")
            if self._compressed:
                self._stream = lzma.LZMADecompressor(memlimit=MOST_MEMORY)
                return True
        return False


def _open_zstd(file: BinaryIO, mode: str = "rb") -> io.BufferedReader:
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


@functools.cache
def _fsspec() -> Any:
    """Import fsspec, which takes long, and register `.zst` with it.

    It knows that only where one of two optional packages is installed; without them it would return compressed bytes.
    """
    import fsspec
    import fsspec.compression

    if "zstd" not in fsspec.compression.compr:
        fsspec.compression.register_compression("zstd", _open_zstd, "zst", force=True)
    return fsspec


def _compression(path: str) -> str | None:
    """Return fsspec's name of a path's compression."""
    _fsspec()
    from fsspec.utils import infer_compression

    return cast(str | None, infer_compression(path))


def _open_xz(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_XzFile(file), _BUFFER)


def is_compressed(path: str) -> bool:
    """Return whether a path has the suffix of a compressed file."""
    return _compression(path) is not None


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """Open a local path or any fsspec URL for reading; `.gz`, `.zst`, `.xz`, `.bz2` are decompressed.

    Raises `InputError` where the file cannot be opened or, inside the block, read.
    """
    try:
        packing = _compression(path)
        if packing in ("xz", "lzma"):
            with _fsspec().open(path, "rb") as file:
                yield cast(BinaryIO, _open_xz(file))
        elif is_remote(path) or packing:
            with _fsspec().open(path, "rb", compression=packing) as file:
                yield cast(BinaryIO, io.BufferedReader(file, _BUFFER))
        else:
            with open(path, "rb", buffering=_BUFFER) as file:  # noqa: PTH123  # the path is as the user wrote it
                yield file
    except InputError:
        raise
    except Exception as error:  # each file system and decompressor has its own exceptions
        raise InputError(f"cannot read {path}: {why_unread(error)}") from error


def why_unread(error: Exception) -> str:
    """Return the message of a file system or decompressor, with a remedy where it needs too much memory."""
    message = str(error) or type(error).__name__
    if any(words in message.lower() for words in _NO_MEMORY):
        return f"decompressing it needs more memory than {MOST_MEMORY:,} bytes ({message}): {_ADVICE}"
    if isinstance(error, MemoryError):
        return (
            f"it needs more memory than there is ({message}): split it into smaller files, or read it on a machine "
            "with more"
        )
    return message
