"""Reading of a corpus: formats, bad rows, metadata, changed files, memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rollmill.corpus.corpus import read_corpus
from rollmill.corpus.table import SCHEMA
from rollmill.errors import InputError
from tests.corpus.sample_records import PACKERS, lines, make_run, record, without_places

RECORDS = [
    record("p", 0),
    record("q", 0, answer="é \U0001f600 \u2028 \x00", success=False, reward=0.0, metadata={"a": [1], "b": None}),
    record("p", 1, answer="xy", verdict={"error": 0.5}, usage={"prompt_tokens": 1, "completion_tokens": 2}),
    record("q", 1, reward=None, success=None, error={"type": "timeout", "message": "[m]"}),
]  # fmt: skip
COLUMNS = sorted({key for item in RECORDS for key in item})
REAL = Path(__file__).parents[3] / "shared/data/evaluated_rollouts.json"


def document(records, **rest):
    return {"metadata": {"model_name": "m"}, "examples": records, "summary": {"n": len(records)}, **rest}


def parquet(records, *structured):
    """With the structured columns nested, or those named as JSON text."""
    rows = [{key: item.get(key) for key in COLUMNS} for item in records]
    for row in rows:
        for key in structured:
            row[key] = row[key] if row[key] is None else orjson.dumps(row[key]).decode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


FORMS = {
    "lines.jsonl": lines(RECORDS),
    "ndjson.ndjson": lines(RECORDS),
    "crlf.jsonl": b"\xef\xbb\xbf" + lines(RECORDS).replace(b"\n", b"\r\n\r\n"),
    "endless.jsonl": lines(RECORDS)[:-1],
    "escaped.jsonl": "\n".join(map(json.dumps, RECORDS)).encode(),
    "lines.json": lines(RECORDS),
    "array.json": orjson.dumps(RECORDS),
    "indented.json": json.dumps(RECORDS, indent=4).encode(),
    "document.json": orjson.dumps(document(RECORDS)),
    "document_indented.json": orjson.dumps(document(RECORDS), option=orjson.OPT_INDENT_2),
    "nested.parquet": parquet(RECORDS),
    "text.parquet": parquet(RECORDS, "messages", "metadata", "verdict", "usage", "error"),
}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return write


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The table that every form is to give."""
    path = tmp_path_factory.mktemp("plain") / "plain.jsonl"
    path.write_bytes(lines(RECORDS))
    return without_places(read_corpus([str(path)]).table)


def loaded(corpus, table=None):
    return [orjson.loads(item) for item in corpus.records(corpus.table if table is None else table)]


def bad_row_facts(item):
    """A record less what is null in it, which a file with columns has for every field."""
    if isinstance(item, dict):
        return {key: bad_row_facts(value) for key, value in item.items() if value is not None}
    return [bad_row_facts(value) for value in item] if isinstance(item, list) else item


def bad_rows(path):
    result = []
    corpus = read_corpus([str(path)], lambda source, row: result.append(row))
    assert corpus.quarantined == len(result)
    return corpus, [(row.number, row.field, row.reason) for row in result]


def test_the_plain_table(write):
    corpus = read_corpus([write("a.jsonl", lines(RECORDS))])
    table = corpus.table
    assert table.schema == SCHEMA
    assert table["row"].to_list() == [0, 1, 2, 3]
    assert table["number"].to_list() == [1, 2, 3, 4]
    assert table["instance_id"].to_list() == ["p", "q", "p", "q"]
    assert table["reward"].to_list() == [1.0, 0.0, 1.0, None]
    assert table["tokens"].to_list() == [None, None, 3, None]
    assert table["status"].to_list() == ["ok", "ok", "ok", "failed"]
    sizes = [len(orjson.dumps(item)) + 1 for item in RECORDS]
    assert table["length"].to_list() == sizes
    assert table["offset"].to_list() == [sum(sizes[:index]) for index in range(4)]
    assert (corpus.name, corpus.metadata, corpus.quarantined, corpus.repaired) == ("a.jsonl", {}, 0, 0)


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_table(write, memory, plain, form, packed):
    content = PACKERS[packed](FORMS[form])
    path = write(form + packed, content)
    memory.pipe(f"/{form}{packed}", content)
    for source in (path, f"file://{path}", f"memory://{form}{packed}"):
        corpus = read_corpus([source])
        assert_frame_equal(without_places(corpus.table), plain)
        assert list(map(bad_row_facts, loaded(corpus))) == list(map(bad_row_facts, RECORDS))
        subset = corpus.table.filter(pl.col("row").is_in([1, 3]))
        assert list(map(bad_row_facts, loaded(corpus, subset))) == list(map(bad_row_facts, RECORDS[1::2]))
        assert loaded(corpus, corpus.table.head(0)) == []
        assert corpus.metadata == ({"model_name": "m"} if form.startswith("document") else {})
        if "parquet" not in form:
            assert loaded(corpus) == RECORDS


def test_several_files_in_their_order(write):
    second, first = write("b.json", orjson.dumps(RECORDS[2:])), write("a.jsonl", lines(RECORDS[:2]))
    corpus = read_corpus([second, first])
    assert corpus.sources == [second, first]
    assert corpus.name == "b.json and 1 more"
    assert corpus.table["source"].to_list() == [0, 0, 1, 1]
    assert corpus.table["row"].to_list() == [0, 1, 2, 3]
    assert loaded(corpus) == RECORDS[2:] + RECORDS[:2]
    assert loaded(corpus, corpus.table.filter(pl.col("instance_id") == "q")) == [RECORDS[3], RECORDS[1]]
    assert corpus.image_root(0) == Path(second).parent


def test_metadata_has_the_fields_that_all_files_share(write):
    first = write(
        "1.json", orjson.dumps(document(RECORDS[:1]) | {"metadata": {"model": "m", "temperature": 1, "n": 1}})
    )
    second = write("2.json", orjson.dumps(document(RECORDS[:1]) | {"metadata": {"model": "m", "temperature": 0}}))
    assert read_corpus([first, second]).metadata == {"model": "m"}
    assert read_corpus([first, write("3.jsonl", lines(RECORDS[:1]))]).metadata == {}
    assert read_corpus([write("4.json", orjson.dumps(document([]) | {"metadata": [1]}))]).metadata == {}


def test_missing_sample_ids_are_numbered_within_the_problem(write):
    rows = [record(problem, ...) for problem in ("p", "q", "p", "p", "q")]
    first, second = write("a.jsonl", lines(rows)), write("b.jsonl", lines(rows[:2]))
    assert read_corpus([first, second]).table["sample_id"].to_list() == [0, 0, 1, 2, 1, 0, 0]


def test_tokens_are_the_sum_of_usage_with_one_answer(write):
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    turns = [{"role": "assistant", "content": "a"}]
    rows = [
        record(messages=turns, usage=usage),
        record(messages=turns * 2, usage=usage),
        record(usage={"prompt_tokens": 3}),
    ]
    assert read_corpus([write("a.jsonl", lines(rows))]).table["tokens"].to_list() == [8, None, None]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_bad_rows_have_line_and_reason(write, name):
    rows = [
        orjson.dumps(RECORDS[0]),
        b'{"instance_id": "p", "reward": "1"}',
        b"[1]",
        orjson.dumps(RECORDS[1]),
        b'{"reward": 1}',
        b'{"instance_id": "p", "x": "\xff"}',
        b'{"instance_id": "p", "messages": [1]}',
    ]
    content = b"[" + b",".join(rows) + b"]" if name == "a.json" else b"\n".join(rows)
    corpus, bad = bad_rows(write(name, PACKERS[".gz" if name.endswith("gz") else ""](content)))
    assert bad == [
        (2, "reward", 'expected a number or null, found "1"'),
        (3, None, "expected a JSON object, found list"),
        (
            5,
            "instance_id",
            "missing: `instance_id` identifies the problem of a row; the row has reward: name one with --id_field, "
            "the messages with --messages_field",
        ),
        (6, None, "not valid JSON in UTF-8: 'utf-8' codec can't decode byte 0xff in position 27: invalid start byte"),
        (7, "messages", "Expected `object`, got `int` at messages[0]"),
    ]
    assert corpus.table["number"].to_list() == [1, 4]
    assert loaded(corpus) == RECORDS[:2]


def test_a_torn_last_line_is_a_bad_row(write):
    corpus, bad = bad_rows(write("a.jsonl", lines(RECORDS) + b'{"instance_id": "p", "mess'))
    assert corpus.table.height == 4
    assert [(number, field) for number, field, _ in bad] == [(5, None)]


def test_truncated_document_is_reported(write):
    corpus, bad = bad_rows(write("a.json", orjson.dumps(document(RECORDS))[:-60]))
    assert corpus.table.height == 3
    assert [number for number, _, _ in bad] == [4, 5]


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [("a.jsonl", b"", 0), ("a.jsonl", b"\n \n\t\n", 0), ("a.json", b"[]", 0), ("a.json", orjson.dumps(document([])), 0),
     ("a.jsonl", b"x\n7\n\n{}\n", 3), ("a.parquet", parquet(RECORDS[:0] or [{}]), 1)],
)  # fmt: skip
def test_files_without_a_rollout(write, name, content, count):
    corpus, bad = bad_rows(write(name, content))
    assert len(bad) == count
    assert corpus.table.height == 0
    assert corpus.table.schema == SCHEMA
    assert loaded(corpus) == []


def test_parquet_rows_that_cannot_be_read(tmp_path):
    raw = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc")]
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"instance_id": raw}), path)
    corpus, bad = bad_rows(path)
    assert corpus.table["instance_id"].to_list() == ["a", "c"]
    ((number, field, reason),) = bad
    assert (number, field) == (2, None)
    assert reason.startswith("cannot be read: 'utf-8' codec can't decode")
    assert [item["instance_id"] for item in loaded(corpus, corpus.table.tail(1))] == ["c"]


@pytest.mark.parametrize("error", ["[Errno 111] Connection refused", "{not json", "[1, 2"])
def test_parquet_text_that_only_looks_like_json(write, error):
    corpus, bad = bad_rows(write("a.parquet", parquet([record(error=error)])))
    assert bad == []
    assert loaded(corpus)[0]["error"] == error


def test_records_are_read_back_with_null_for_nan(write):
    rows = [json.dumps(record("p", 0, reward=float("nan"), x=[float("inf")])), json.dumps(record("p", 1, answer="NaN"))]
    for path in (write("a.jsonl", "\n".join(rows).encode()), write("a.json", f"[{','.join(rows)}]".encode())):
        corpus = read_corpus([path])
        assert corpus.repaired == 1
        assert loaded(corpus) == [record("p", 0, reward=None, x=[None]), record("p", 1, answer="NaN")]


CHANGES = {
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "replaced": lambda path: (
        path.with_suffix(".new").write_bytes(path.read_bytes()),
        path.with_suffix(".new").replace(path),
    ),
    "rewritten": lambda path: (path.write_bytes(path.read_bytes().replace(b"q of", b"Q OF")), os.utime(path, (1, 1))),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", ["lines.jsonl", "array.json", "nested.parquet"])
def test_changed_file_is_refused(write, form, change):
    path = Path(write(form, FORMS[form]))
    corpus = read_corpus([str(path)])
    CHANGES[change](path)
    with pytest.raises(InputError, match=f"{path} was changed while it was read: run the command again"):
        list(corpus.records(corpus.table))


def test_appended_lines_leave_records_readable(write):
    path = Path(write("a.jsonl", lines(RECORDS)))
    corpus = read_corpus([str(path)])
    with path.open("ab") as file:
        file.write(lines(RECORDS))
    assert loaded(corpus) == RECORDS
    array = Path(write("a.json", FORMS["array.json"]))
    corpus = read_corpus([str(array)])
    array.write_bytes(orjson.dumps(RECORDS * 2))
    with pytest.raises(InputError, match="was changed"):
        list(corpus.records(corpus.table))


def test_grown_file_with_other_lines_is_refused(write):
    path = Path(write("a.jsonl", lines(RECORDS)))
    corpus = read_corpus([str(path)])
    path.write_bytes(b"#\n" + lines(RECORDS) + b"#\n")
    with pytest.raises(InputError, match="was changed"):
        list(corpus.records(corpus.table))


def test_run_has_name_and_metadata(tmp_path):
    make_run(tmp_path / "my_run", [record("a"), record("b")])
    corpus = read_corpus([str(tmp_path / "my_run")])
    assert corpus.name == "my_run"
    assert corpus.metadata == {"model_name": "my_run", "identity": "k" * 8}
    assert corpus.image_root(0) == tmp_path / "my_run"
    assert loaded(corpus) == [record("b"), record("a")]


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([orjson.dumps(item) for item in RECORDS]))))
def test_every_line_is_a_row_or_a_bad_row(tmp_path_factory, values):
    content = b"\n".join(values)
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(content)
    kept = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line and not line.isspace()]
    corpus, bad = bad_rows(path)
    assert corpus.table.height + len(bad) == len(kept)
    assert all(reason for _, _, reason in bad)
    numbers = sorted([*corpus.table["number"], *(number for number, _, _ in bad)])
    assert len(set(numbers)) == len(numbers)
    result = list(corpus.records(corpus.table))
    every = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert result == [every[number - 1].strip() for number in corpus.table["number"]]
    assert all(isinstance(orjson.loads(item), dict) for item in result)


@pytest.mark.slow
def test_memory_of_a_large_file(tmp_path):
    path = tmp_path / "large.jsonl"
    turns = [{"role": role, "content": "some words and\nsome more " * 70} for role in ("user", "assistant") * 10]
    with path.open("wb") as file:
        for number in range(9000):
            file.write(orjson.dumps(record(f"p{number}", messages=turns)) + b"\n")
    assert path.stat().st_size > 300e6
    script = f"""
import re
from pathlib import Path
from rollmill.corpus.corpus import read_corpus
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
corpus = read_corpus([{str(path)!r}])
print(corpus.table.height, sum(map(len, corpus.records(corpus.table))), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rows, size, grown = map(int, done.stdout.split())
    assert (rows, size) == (9000, path.stat().st_size - 9000)
    assert grown < 100  # MB


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not here")
def test_rollouts_of_another_producer():
    corpus, bad = bad_rows(REAL)
    table = corpus.table
    assert bad == []
    assert table.height == 24
    assert table["success"].sum() == 2
    assert table.filter(pl.col("claimed_success") & ~pl.col("success")).height == 21
    assert table.filter(pl.col("status") == "failed")["error_type"].to_list() == ["RetryError"]
    assert table["success"].null_count() == 1
    assert loaded(corpus) == orjson.loads(REAL.read_bytes())


def test_conversations_end_with_the_completion_in_whatever_form_it_is_recorded(tmp_path):
    rows = [
        {"instance_id": "a", "messages": [{"role": "user", "content": "1?"}], "completion": "one", "times": {"s": 1}},
        {"instance_id": "b", "prompt": "2?", "completion": [{"role": "assistant", "content": "two"}]},
        record("c", answer="three"),
    ]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    corpus = read_corpus([str(tmp_path / "rows.jsonl")])
    expected = [[("user", "1?"), ("assistant", "one")], [("user", "2?"), ("assistant", "two")]]
    expected.append([("user", "q of c"), ("assistant", "three")])
    read = [[(turn["role"], turn["content"]) for turn in turns] for turns in corpus.conversations(corpus.table)]
    assert read == expected
    last = corpus.table.filter(pl.col("instance_id") == "c")
    assert list(corpus.conversations(last)) == [rows[2]["messages"]]
