import bz2
import gzip
import lzma
from pathlib import Path

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollmill.errors import InputError
from rollmill.problems.data_files import folder_of, is_data_file, read_data_file

ROWS = [{"prompt": f"q{number}", "answer": number} for number in range(300)]
LINES = b"".join(orjson.dumps(row) + b"\n" for row in ROWS)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstd, ".xz": lzma.compress, ".bz2": bz2.compress}


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (".jsonl", LINES),
        (".json", orjson.dumps(ROWS)),
        (".json", orjson.dumps({"data": ROWS})),
        (".parquet", parquet()),
    ],
)
def test_every_kind_plain_and_compressed(tmp_path: Path, kind, content, packed):
    path = tmp_path / f"data{kind}{packed}"
    path.write_bytes(PACKERS[packed](content))
    assert list(read_data_file(str(path))) == list(enumerate(ROWS, start=1))


def test_json_file_that_holds_lines(tmp_path: Path):
    path = tmp_path / "data.json"
    path.write_bytes(b"\xef\xbb\xbf\n" + LINES)
    assert [row for _, row in read_data_file(str(path))] == ROWS


def test_fsspec_url():
    with fsspec.open("memory://folder/data.jsonl", "wb") as file:
        file.write(LINES)
    assert [row for _, row in read_data_file("memory://folder/data.jsonl")] == ROWS
    assert folder_of("memory://folder/data.jsonl") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.parquet", b"PAR1 no"),
        ("bad.jsonl.gz", b"\x1f\x8b\x08 no"),
        ("bad.jsonl.zst", b"no"),
        ("bad.json", b"{"),
        ("bad.json", b'{"a": "\\ud800"}'),
        ("data.csv", b"a,b"),
        ("data", b"a,b"),
    ],
)
def test_unreadable_files(tmp_path: Path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert is_data_file(str(path))
    with pytest.raises(InputError, match=name) as caught:
        list(read_data_file(str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/nowhere/x.jsonl", "/nowhere/x.parquet", "nope://x/y.jsonl", "https://h/x.csv"])
def test_unreachable_files(path):
    with pytest.raises(InputError):
        list(read_data_file(path))


@pytest.mark.parametrize("dataset", ["org/name", "gsm8k", "reasoning_gym:ab", "org/name.v2"])
def test_other_sources_are_not_files(dataset):
    assert not is_data_file(dataset)


def test_parquet_text_that_is_not_utf8(tmp_path: Path):
    good = pa.array([b"a", b"\xff", b"c"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, good.buffers())
    pq.write_table(pa.table({"prompt": broken, "answer": [1, 2, 3]}), tmp_path / "x.parquet")
    rows = list(read_data_file(str(tmp_path / "x.parquet")))
    assert rows[0] == (1, {"prompt": "a", "answer": 1})
    assert (rows[1][1].number, rows[1][1].reason[:14]) == (2, "cannot be read")
    assert rows[2] == (3, {"prompt": "c", "answer": 3})
