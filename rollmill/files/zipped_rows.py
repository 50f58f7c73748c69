"""JSON files in a zip file, each a row: bounded, whatever the zip file says of itself."""

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
"""Unpacked bytes for each packed one: beyond `_SLACK`, no honest log has so many."""
_SLACK = 16 << 20
"""Bytes that are unpacked whatever the ratio is."""
_ZSTD = 93
_LOCAL_HEADER = struct.Struct("<26xHH")
_PIECE = 1 << 20


class _ZipFaultError(Exception):
    """A file in it that is not read."""


def raw_zipped_rows(path: str, folder: str) -> Iterator[RawRow]:
    """Yield every `.json` file in a folder of a zip file; of two with one name the last.

    Raises `InputError` where the file cannot be read, holds none, or one that is larger than `LARGEST_ROW` or than its
    packed bytes can honestly become.
    """
    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                found = {info.filename: info for info in archive.infolist()}
                wanted = [info for name, info in found.items() if name.startswith(folder) and name.endswith(".json")]
                if not wanted:
                    raise InputError(f"{path} holds no {folder}*.json: of zip files the logs of inspect_ai are read")
                for number, info in enumerate(wanted, start=1):
                    look()
                    yield RawRow(number, _content(archive, file, info))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{path} cannot be read as a zip file: {error}") from error
        except _ZipFaultError as error:
            raise InputError(f"{path} is not read: {error}") from error


def _content(archive: zipfile.ZipFile, file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    limit = min(LARGEST_ROW, info.compress_size * MOST_RATIO + _SLACK)
    content = bytearray()
    for piece in _zstd_pieces(file, info) if info.compress_type == _ZSTD else _pieces(archive, info):
        content += piece
        if len(content) > limit:
            raise _ZipFaultError(f"{info.filename} unpacks to more than {limit:,} bytes")
    return bytes(content)


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as member:
        while piece := member.read(_PIECE):
            yield piece


def _zstd_pieces(file: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what zstd has packed, which Python's zip files know from 3.14 on."""
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
    packed = file.read(info.compress_size)
    checksum = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            while piece := stream.read(_PIECE):
                checksum = zlib.crc32(piece, checksum)
                yield piece
    except OSError as error:
        raise zipfile.BadZipFile(f"{info.filename}: {error}") from error
    if checksum != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} has a wrong checksum")
