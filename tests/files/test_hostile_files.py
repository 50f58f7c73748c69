"""Packed files that would take all memory, and lines and documents that do not end."""

import bz2
import gzip
import lzma
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.files import io, json_array, rows
from rollmill.files.formats import file_kind
from rollmill.files.io import open_binary
from rollmill.files.rows import read_json, read_json_lines

LINE = b'{"a": 1}\n'


def zstd_frame(window_log: int) -> bytes:
    """A frame with one raw block, whose head asks for a window (RFC 8878, 3.1.1)."""
    block = struct.pack("<I", len(LINE) << 3 | 1)[:3] + LINE
    return bytes.fromhex("28B52FFD") + bytes([0, (window_log - 10) << 3]) + block


def xz_with_dictionary(size_code: int) -> bytes:
    """A real file whose block's head asks for another dictionary (the .xz format, 5.3.1)."""
    packed = bytearray(lzma.compress(LINE, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    size = (packed[12] + 1) * 4
    head = packed[12 : 12 + size - 4]
    head[head.index(b"\x21\x01") + 2] = size_code
    packed[12 : 12 + size] = head + struct.pack("<I", zlib.crc32(head))
    return bytes(packed)


def lzma_with_dictionary(size: int) -> bytes:
    packed = bytearray(lzma.compress(LINE, format=lzma.FORMAT_ALONE))
    packed[1:5] = struct.pack("<I", size)
    return bytes(packed)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.zst", zstd_frame(31)),
        ("a.jsonl.zst", zstd_frame(28)),
        ("a.jsonl.xz", xz_with_dictionary(40)),
        ("a.jsonl.xz", xz_with_dictionary(35)),
        ("a.jsonl.lzma", lzma_with_dictionary(2**32 - 1)),
    ],
)
def test_compression_window_over_the_limit_is_refused_with_advice(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"needs more memory than 134,217,728 bytes.* decompress it first") as raised:
        list(read_json_lines(str(path)))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.zst", zstd_frame(23)),
        ("a.jsonl.xz", xz_with_dictionary(28)),
        ("a.jsonl.xz", lzma.compress(LINE, preset=9 | lzma.PRESET_EXTREME)),
        ("a.jsonl.lzma", lzma_with_dictionary(64 << 20)),
        ("a.jsonl.gz", gzip.compress(LINE, mtime=0)),
        ("a.jsonl.bz2", bz2.compress(LINE)),
    ],
)
def test_what_usual_packers_make_is_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert list(read_json_lines(str(tmp_path / name))) == [(1, {"a": 1})]


@given(
    parts=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 3)), min_size=1, max_size=4),
    sizes=st.integers(1, 70),
)
def test_xz_reads_all_streams_and_their_padding(tmp_path_factory, parts, sizes):
    path = tmp_path_factory.getbasetemp() / "streams.xz"
    path.write_bytes(b"".join(lzma.compress(content) + bytes(4 * padding) for content, padding in parts))
    with open_binary(str(path)) as file:
        content = b"".join(iter(lambda: file.read(sizes), b""))
    assert content == b"".join(part for part, _ in parts)


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_a_torn_xz_is_an_error_and_no_end(tmp_path, cut):
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(lzma.compress(LINE * 100)[:-cut])
    with pytest.raises(InputError, match="cannot read"):
        list(read_json_lines(str(path)))


def test_garbage_after_an_xz_stream_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(lzma.compress(LINE) + b"and more")
    with pytest.raises(InputError, match="cannot read"):
        list(read_json_lines(str(path)))


@pytest.mark.parametrize("pack", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("content", [b"x" * 5000, b'{"a": "' + b"y" * 5000 + b'"}', b" " * 5000, b"\0" * 5000])
def test_endless_line_is_reported_with_its_position(tmp_path, monkeypatch, pack, content):
    monkeypatch.setattr(rows, "LARGEST_ROW", 1000)
    path = tmp_path / f"a.jsonl{pack}"
    packing = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[pack]
    path.write_bytes(packing(LINE + content))
    read = read_json_lines(str(path))
    assert next(read) == (1, {"a": 1})
    with pytest.raises(InputError, match=r"line 2 has more than 1,000 bytes.*write one row per line"):
        next(read)


def test_a_line_at_the_bound_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGEST_ROW", len(LINE))
    (tmp_path / "a.jsonl").write_bytes(LINE * 3)
    assert len(list(read_json_lines(str(tmp_path / "a.jsonl")))) == 3


@pytest.mark.parametrize(
    "text",
    [
        b" " * 20_000,
        b'{"a": "' + b"x" * 20_000,
        b'[{"a": "' + b"x" * 20_000,
        b"[" + b"1" * 20_000,
        b'{"a": ' + b"[" * 20_000,
        b'[{"a": "' + b"\\" * 20_000,
        b'{"rows": [{"a": 1}], "b": "' + b"x" * 20_000 + b'"}',
        b'{"b": "' + b"x" * 20_000 + b'", "rows": [{"a": 1}]}',
    ],
)
def test_a_document_whose_parts_do_not_end(tmp_path, monkeypatch, text):
    monkeypatch.setattr(json_array, "LARGEST_ROW", 5000)
    monkeypatch.setattr(json_array, "_CHUNK", 512)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(text))
    with pytest.raises(InputError, match=r"more than 5,000 bytes"):
        list(read_json(str(path)))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]) << 20,) * 2)
from rollmill.errors import InputError
from rollmill.files.rows import read_json_lines
try:
    for number, row in read_json_lines(sys.argv[1]):
        print(number, type(row).__name__)
except InputError as error:
    print(error)
"""


def read_in_little_memory(path: Path, megabytes: int) -> list[str]:
    command = [sys.executable, "-c", LIMITED, str(path), str(megabytes)]
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def gigabyte_line() -> bytes:
    packing = zlib.compressobj(1, wbits=31)
    pieces = [packing.compress(LINE)] + [packing.compress(b"x" * (1 << 20)) for _ in range(1024)]
    return b"".join(pieces) + packing.flush()


def test_a_bomb_in_one_line_ends_in_one_line(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gigabyte_line())
    first, message = read_in_little_memory(path, 2000)
    assert first == "1 dict"
    assert "line 2 has more than 268,435,456 bytes" in message


def test_where_memory_ends_before_the_bound_that_is_said(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gigabyte_line())
    first, message = read_in_little_memory(path, 400)
    assert first == "1 dict"
    assert "needs more memory than there is" in message
    assert "split it into smaller files" in message


def test_the_kind_of_a_bomb_is_told_from_its_beginning(tmp_path):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gigabyte_line())
    assert file_kind(str(path)) == "lines"


def test_the_bounds_are_those_that_are_documented():
    assert (rows.LARGEST_ROW, json_array.LARGEST_ROW, io.MOST_MEMORY) == (1 << 28, 1 << 28, 128 << 20)
