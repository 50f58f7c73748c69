"""Read JSON files in a zip file as rows, with limits against zip bombs."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from rollmill.errors import InputError
from rollmill.files.io import open_binary
from rollmill.files.raw_row import LARGEST_ROW, RawRow
from rollmill.terminal.interruption import look

ZIP_MARK = b"PK\x03\x04"
MOST_RATIO = 300
"""Largest ratio of decompressed to compressed bytes beyond `_SLACK`, which no real log reaches."""
_SLACK = 16 << 20
"""Bytes that are decompressed whatever the ratio is."""
_ZSTD = 93
_LOCAL_HEADER = struct.Struct("<26xHH")
_PIECE = 1 << 20


class _ZipFaultError(Exception):
    """A file in the zip file that exceeds the limits or is encrypted."""


def raw_zipped_rows(path: str, folder: str) -> Iterator[RawRow]:
    """Yield every `.json` file in a folder of a zip file; of files with the same name, the last.

    Raises `InputError` where the zip file cannot be read, contains none, or one that exceeds `LARGEST_ROW` or the
    largest ratio.
    """
    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename: info for info in archive.infolist()}
                logs = [info for name, info in members.items() if name.startswith(folder) and name.endswith(".json")]
                if not logs:
                    raise InputError(f"{path} has no {folder}*.json: only zip files of inspect_ai logs are read")
                for number, info in enumerate(logs, start=1):
                    look()
                    yield RawRow(number, _content(archive, file, info))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{path} cannot be read as a zip file: {error}") from error
        except _ZipFaultError as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def _content(archive: zipfile.ZipFile, file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    limit = min(LARGEST_ROW, info.compress_size * MOST_RATIO + _SLACK)
    content = bytearray()
    for piece in _zstd_pieces(file, info) if info.compress_type == _ZSTD else _pieces(archive, info):
        content += piece
        if len(content) > limit:
            raise _ZipFaultError(f"{info.filename} decompresses to more than {limit:,} bytes")
    return bytes(content)


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as member:
        while piece := member.read(_PIECE):
            yield piece


def _zstd_pieces(file: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of a member compressed with zstd, which Python's zipfile supports from 3.14 on."""
    import pyarrow as pa

    if info.flag_bits & 1:
        raise _ZipFaultError(f"{info.filename} is encrypted")
    if info.compress_size > LARGEST_ROW:
        raise _ZipFaultError(f"{info.filename} has more than {LARGEST_ROW:,} bytes")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if not header.startswith(ZIP_MARK) or len(header) < _LOCAL_HEADER.size:
        raise zipfile.BadZipFile(f"{info.filename} does not begin where the file says")
    file.seek(sum(_LOCAL_HEADER.unpack(header)), 1)
    compressed = file.read(info.compress_size)
    checksum = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(compressed), "zstd") as stream:
            while piece := stream.read(_PIECE):
                checksum = zlib.crc32(piece, checksum)
                yield piece
    except OSError as error:
        raise zipfile.BadZipFile(f"{info.filename}: {error}") from error
    if checksum != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} has a wrong checksum")
