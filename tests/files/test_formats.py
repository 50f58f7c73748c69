import pytest

from rollmill.files.formats import file_kind, kind_by_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "lines"),
        ("a.NDJSON.gz", "lines"),
        ("a.json.zst", "document"),
        ("s3://b/a.parquet?version=1", "parquet"),
        ("a.csv", None),
        ("json", None),
    ],
)
def test_by_name(name, kind):
    assert kind_by_name(name) == kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"a": 1}\n{"a": 2}\n', "lines"),
        (b'{"a": 1}\n', "lines"),
        (b'\xef\xbb\xbf\n{"a": 1}', "lines"),
        (b'{"examples": [1]}\n', "document"),
        (b'{"examples": [1]}\n{"examples": [2]}\n', "lines"),
        (b"{\n}", "document"),
        (b"[1]\n[2]", "document"),
        (b"", "document"),
    ],
)
def test_a_json_file_may_hold_lines(tmp_path, content, kind):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    assert file_kind(str(path)) == kind
