import bz2
import gzip
import lzma
import math
import subprocess
import sys

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, dump_line, parse_line, read_json, read_json_lines

ROWS = [{"id": number, "text": "é" * number} for number in range(1, 4)]
LINES = b"".join(orjson.dumps(row) + b"\n" for row in ROWS)


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


def read(path, reader=read_json_lines):
    return list(reader(str(path)))


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)],
)
def test_plain_and_compressed(tmp_path, suffix, pack):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(pack(LINES))
    assert read(path) == list(enumerate(ROWS, start=1))
    assert read(f"file://{path}") == list(enumerate(ROWS, start=1))
    path = tmp_path / f"rows.json{suffix}"
    path.write_bytes(pack(orjson.dumps({"data": ROWS})))
    assert read(path, read_json) == list(enumerate(ROWS, start=1))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstd)])
@pytest.mark.parametrize("reader", [read_json_lines, read_json])
def test_a_compressed_file_that_is_cut_off_or_none(tmp_path, suffix, pack, reader):
    lines = b"".join(dump_line({"text": str(math.sqrt(number))}) for number in range(5000))
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(pack(lines)[:-100])
    with pytest.raises(InputError, match=f"cannot read {path}: "):
        read(path, reader)
    path.write_bytes(b"not packed at all")
    with pytest.raises(InputError, match=f"cannot read {path}: ") as caught:
        read(path, reader)
    assert "\n" not in str(caught.value)


def test_several_zstd_frames(tmp_path):
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstd(LINES) + zstd(LINES))
    assert [row for _, row in read(path)] == ROWS * 2


def test_zstd_is_read_whoever_asks_first(tmp_path):
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstd(LINES))
    script = f"from rollmill.files.rows import read_json_lines; print(len(list(read_json_lines({str(path)!r}))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \t\n{"a": 2}\n{"a"\n7\n{"a": "\xff"}\n{"a": "\\ud800"}\n{"a": 3}')
    rows = dict(read(path))
    assert list(rows) == [1, 4, 5, 6, 7, 8, 9]
    assert (rows[1], rows[4], rows[9]) == ({"a": 1}, {"a": 2}, {"a": 3})
    assert rows[5].reason.startswith("not valid JSON in UTF-8: ")
    assert rows[5] == BadRow(5, None, rows[5].reason, '{"a"')
    assert rows[6].reason == "expected a JSON object, found int"
    assert rows[7].raw == '{"a": "\\xff"}'
    assert rows[8].reason.startswith("not valid JSON in UTF-8: ")


def test_a_long_bad_line_is_kept_in_part():
    bad = parse_line(1, b"x" * 10_000_000)
    assert len(bad.raw) == 2000
    assert orjson.loads(dump_line(bad.to_json())) == {"row": 1, "field": None, "reason": bad.reason, "raw": bad.raw}


@given(st.binary())
def test_any_line_gives_a_row_or_a_writable_reason(line):
    row = parse_line(3, line)
    assert dump_line(row.to_json() if isinstance(row, BadRow) else row)


@pytest.mark.parametrize("value", [ROWS, {"data": ROWS}, {"n": 1, "problems": ROWS, "other": [1]}, {"rows": ROWS}])
def test_arrays(tmp_path, value):
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + orjson.dumps(value, option=orjson.OPT_INDENT_2))
    assert read(path, read_json) == list(enumerate(ROWS, start=1))


def test_an_array_of_other_things(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": 1}, [2], null]')
    assert read(path, read_json) == [
        (1, {"a": 1}),
        (2, BadRow(2, None, "expected a JSON object, found list", "[2]")),
        (3, BadRow(3, None, "expected a JSON object, found NoneType", "null")),
    ]


@pytest.mark.parametrize("content", [b'[{"a": 1}, {"a"', b'{"x": [1], "rows": [{"a": 1}, {"a"'])
def test_a_document_that_is_cut_off_keeps_its_whole_rows(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    (_, first), (_, torn), (_, end) = read(path, read_json)
    assert first == {"a": 1}
    assert (torn.number, torn.raw, end.number) == (2, '{"a"', 3)
    assert "is cut off" in end.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a JSON document: .*empty document"),
        (b'{"data": [1], "x": }', "cannot be read as a JSON document: "),
        (b"[1] [2]", "cannot be read as a JSON document: "),
        (b'{"\xff": 1}', "cannot be read as a JSON document: "),
        (b"7", "is neither a JSON array nor an object with one under examples, data"),
        (b'{"data": {"a": 1}}', "is neither a JSON array"),
    ],
)
def test_invalid_array_is_refused(tmp_path, content, words):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(path, read_json)


@pytest.mark.parametrize("reader", [read_json_lines, read_json])
@pytest.mark.parametrize("name", ["missing.jsonl", "", "/proc/self/mem", "nosuch://x/y"])
def test_unreadable_file_is_refused(tmp_path, name, reader):
    with pytest.raises(InputError, match="cannot read "):
        read(tmp_path / name if "/" not in name else name, reader)


def test_an_empty_file_has_no_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"")
    assert read(path) == []


def test_a_line_is_always_json():
    line = dump_line({"a": math.nan, "b": math.inf, "c": np.float32(0.5), "d": np.arange(2), "e": "a\nb"})
    assert line == b'{"a":null,"b":null,"c":0.5,"d":[0,1],"e":"a\\nb"}\n'
    with pytest.raises(TypeError, match="surrogates"):
        dump_line({"a": "\ud800"})
