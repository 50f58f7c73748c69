"""Parquet columns as JSON, by their types, at any depth."""

import datetime
import decimal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollmill.corpus.inputs import find_sources
from rollmill.files.arrow_json import json_columns


def rows(table):
    """The rows of a table as JSON says them."""
    to_rows = json_columns(table.schema)
    return [orjson.loads(orjson.dumps(row)) for batch in table.to_batches() for row in to_rows(batch)]


def values(array):
    return [row["x"] for row in rows(pa.table({"x": array}))]


DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, 0, 1)  # a column without a time zone

SCALARS = [
    (pa.decimal128(5, 2), decimal.Decimal("0.50"), 0.5),
    (pa.decimal256(40, 1), decimal.Decimal("7.5"), 7.5),
    (pa.float16(), 1.5, 1.5),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.date32(), DAY, "2024-02-29"),
    (pa.date64(), DAY, "2024-02-29"),
    (pa.timestamp("s"), NOON, "2024-02-29T12:00:01"),
    (pa.timestamp("ns"), NOON, "2024-02-29T12:00:01"),
    (pa.time32("s"), datetime.time(1, 2, 3), "01:02:03"),
    (pa.time64("ns"), datetime.time(1, 2, 3), "01:02:03"),
    (pa.duration("ms"), datetime.timedelta(seconds=1.5), 1.5),
    (pa.binary(), b"text", "text"),
    (pa.large_binary(), b"\xff", "/w=="),
    (pa.large_string(), "t", "t"),
    (pa.string_view(), "t", "t"),
    (pa.binary_view(), b"t", "t"),
    (pa.dictionary(pa.int8(), pa.string()), "t", "t"),
    (pa.uuid(), b"0" * 16, "30303030-3030-3030-3030-303030303030"),
    (pa.json_(), '{"a": [1, null]}', {"a": [1, None]}),
    (pa.map_(pa.string(), pa.int64()), [("k", 1)], {"k": 1}),
    (pa.list_(pa.int64(), 2), [1, 2], [1, 2]),
    (pa.large_list(pa.int64()), [1], [1]),
    (pa.list_view(pa.int64()), [1], [1]),
]


@pytest.mark.parametrize(("kind", "value", "expected"), SCALARS, ids=lambda item: str(item)[:40])
def test_every_type_is_read_also_in_lists_and_structs(kind, value, expected):
    array = pa.array([None, value], kind)
    assert values(array) == [None, expected]
    assert values(array.slice(1)) == [expected]
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), array)
    assert values(lists) == [[None], [expected]]
    assert values(pa.StructArray.from_arrays([array], names=["a"])) == [{}, {"a": expected}]


def test_other_encodings_are_read():
    runs = pa.RunEndEncodedArray.from_arrays([1, 3], ["a", "b"])
    assert values(runs) == ["a", "b", "b"]
    stored = pa.array([0, 1], pa.int8())
    assert values(pa.ExtensionArray.from_storage(pa.bool8(), stored)) == [False, True]
    assert values(pa.nulls(2)) == [None, None]


def test_nulls_of_structs_are_left_out_and_those_of_lists_stay():
    arguments = pa.array([{"path": "a", "n": None}, {"path": None, "n": 1}, None])
    assert values(arguments) == [{"path": "a"}, {"n": 1}, None]
    assert values(pa.array([[1, None]])) == [[1, None]]


def test_what_datasets_notes_as_json_is_opened():
    features = {"x": {"_type": "List", "feature": {"_type": "Json"}}}
    about = {b"huggingface": orjson.dumps({"info": {"features": features}})}
    table = pa.table({"x": [['{"a":1}', "null"]]}).replace_schema_metadata(about)
    assert rows(table) == [{"x": [{"a": 1}, None]}]


def test_text_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="a column of JSON holds"):
        values(pa.array(["{"], pa.json_()))


def test_a_number_that_is_none_is_found_in_the_row(tmp_path):
    pq.write_table(pa.table({"reward": [float("nan"), float("-inf")]}), tmp_path / "x.parquet")
    [source] = find_sources([str(tmp_path / "x.parquet")])
    assert [row.text for row in source.raw_rows()] == [b'{"reward":NaN}', b'{"reward":-Infinity}']
