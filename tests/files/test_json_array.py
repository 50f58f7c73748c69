import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollmill.files import json_array
from rollmill.files.json_array import JsonArray

TEXTS = st.text(alphabet='ab"\\[]{},: é\n\U0001f600', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("examples"), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def _small_chunks(request):
    before = json_array._CHUNK
    yield
    json_array._CHUNK = before


@given(
    rows=st.lists(VALUES, max_size=4),
    before=VALUES,
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
    bare=st.booleans(),
)
@example(rows=["\\", '\\"'], before="\\\\", chunk=1, indent=None, ascii_only=True, bare=False)
def test_rows_equal_those_of_a_json_parser(rows, before, chunk, indent, ascii_only, bare):
    json_array._CHUNK = chunk
    value = rows if bare else {"about": before, "examples": rows, "summary": {"data": [1]}}
    array = JsonArray(io.BytesIO(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()))
    rows_read = list(array)
    assert [json.loads(row.text) for row in rows_read] == rows
    assert [row.number for row in rows_read] == list(range(1, len(rows) + 1))
    if not bare:
        assert array.rest["summary"] == {"data": [1]}
        assert array.rest.get("about", []) == before


@pytest.mark.parametrize("cut", range(20, 46))
def test_a_torn_document_keeps_its_whole_rows(cut):
    text = b'{"metadata": {"a": 1}, "examples": [{"b": 2}, {"c": 3}], "summary": {}}'
    array = JsonArray(io.BytesIO(text[: text.index(b"[") + 1 + cut - 20]))
    rows_read = [row.text for row in array]
    assert rows_read[-1] == b""
    assert [row for row in rows_read if row in (b'{"b": 2}', b'{"c": 3}')] == rows_read[: (cut >= 28) + (cut >= 38)]


def test_a_quote_too_many_ends_before_memory_does(monkeypatch):
    monkeypatch.setattr(json_array, "LARGEST_ROW", 1000)
    text = b'[{"a": 1}, {"b": "x""}, ' + b'{"c": 1}, ' * 1000 + b"1]"
    with pytest.raises(ValueError, match="row 2 has more than 1,000 bytes, or an unbalanced quote"):
        list(JsonArray(io.BytesIO(text)))


def test_memory_is_that_of_a_row():
    class Endless(io.RawIOBase):
        left = 300

        def read(self, size=-1):
            self.left -= 1
            return b'{"a": "' + b"x" * 1_000_000 + b'"},' if self.left > 0 else b""

    class Document:
        def __init__(self):
            self.inner, self.begun = Endless(), False

        def read(self, size=-1):
            if not self.begun:
                self.begun = True
                return b"["
            return self.inner.read(size)

    import tracemalloc

    tracemalloc.start()
    try:
        assert sum(1 for row in JsonArray(Document()) if row.text) == 299
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
