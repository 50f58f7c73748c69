"""The generated-data document."""

import gzip
import io

import orjson
import polars as pl
import pytest

from rollmill.corpus.record import decode_record
from rollmill.errors import InputError
from rollmill.exports.output_files import parse_output_name
from rollmill.exports.seed_format import make_metadata, make_summary, write_seed_format
from rollmill.files.io import open_binary
from rollmill.files.json_array import JsonArray
from tests.exports.sample_corpus import InMemoryCorpus, rollout

RECORDS = [rollout("p0", 0, 1.0, model_calls=3), rollout("p0", 1, 0.0, model_calls=2), rollout("p1", 0, None)]


def write(path, records=RECORDS):
    corpus = InMemoryCorpus(records)
    facts = make_metadata(corpus, corpus.table), corpus.records(corpus.table), make_summary(corpus.table)
    write_seed_format(path, *facts)


@pytest.mark.parametrize("name", ["d.json", "d.json.gz", "d.json.zst"])
def test_document(tmp_path, name):
    write(tmp_path / name)
    with open_binary(str(tmp_path / name)) as file:
        text = file.read()
    assert orjson.loads(text) == {
        "metadata": {
            "model_name": "org/model",
            "temperature": 1.0,
            "samples_per_task": 2,
            "total_tasks": 2,
            "total_samples": 3,
        },
        "examples": RECORDS,
        "summary": {
            "total_examples": 3,
            "successful": 1,
            "failed": 2,
            "average_reward": 0.5,
            "total_model_calls": 5,
        },
    }
    rows = [decode_record(row.text).conversation() for row in JsonArray(io.BytesIO(text))]
    assert rows == [decode_record(orjson.dumps(record)).conversation() for record in RECORDS]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.jsonl.zst"])
def test_lines(tmp_path, name):
    indented = orjson.dumps(RECORDS[0], option=orjson.OPT_INDENT_2)
    write(tmp_path / name, [indented, RECORDS[1]])
    with open_binary(str(tmp_path / name)) as file:
        assert [orjson.loads(line) for line in file] == RECORDS[:2]


def test_no_rows(tmp_path):
    write(tmp_path / "d.json", [])
    document = orjson.loads((tmp_path / "d.json").read_bytes())
    assert document["examples"] == []
    assert document["metadata"]["samples_per_task"] == 0
    assert document["summary"] == {
        "total_examples": 0,
        "successful": 0,
        "failed": 0,
        "average_reward": 0.0,
        "total_model_calls": 0,
    }


def test_unknown_success_counts_as_failed():
    table = InMemoryCorpus([rollout(success=None)]).table
    assert (make_summary(table)["successful"], make_summary(table)["failed"]) == (0, 1)
    assert pl.Series([None], dtype=pl.Boolean).sum() == 0


def test_equal_contents_make_equal_files(tmp_path):
    write(tmp_path / "a.json.gz")
    write(tmp_path / "b.json.gz")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()).startswith(b'{"metadata"')


@pytest.mark.parametrize("name", ["d.json.gz", "d.jsonl.zst", "d.json"])
def test_rows_that_cannot_be_read_leave_no_file(tmp_path, name):
    def rows():
        yield b"{}"
        raise InputError("gone")

    with pytest.raises(InputError, match="gone"):
        write_seed_format(tmp_path / name, {}, rows(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.b.json", ("a.b", ".json", "")),
        ("a.jsonl.gz", ("a", ".jsonl", ".gz")),
        ("a.json.zst", ("a", ".json", ".zst")),
    ],
)
def test_names(tmp_path, name, kind):
    assert tuple(parse_output_name(tmp_path / name)) == kind


@pytest.mark.parametrize("name", ["a", "a.parquet", ".json", "a.json.xz", "a.gz"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="give a path that ends in"):
        parse_output_name(tmp_path / name)
