import re

import orjson
import pytest

from rollmill.environments.search.corpus import CorpusDocument, corpus_sha256, read_corpus, split_contents
from rollmill.errors import InputError


def rows(path, *rows):
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def test_rows_have_an_id_a_title_and_a_text(tmp_path):
    path = rows(
        tmp_path / "c.jsonl",
        {"id": "a", "title": "A", "text": "one"},
        {"id": 7, "contents": '"Seven"\nthe number'},
        {"contents": "no title"},
        {"id": "d", "text": "first\nsecond", "more": [1]},
        {"id": "e", "title": "E", "contents": '"F"\nkept'},
    )
    assert list(read_corpus(path)) == [
        CorpusDocument("a", "A", "one"),
        CorpusDocument("7", "Seven", "the number"),
        CorpusDocument("row-3", "", "no title"),
        CorpusDocument("d", "", "first\nsecond"),
        CorpusDocument("e", "E", '"F"\nkept'),
    ]


def test_parquet_is_read(tmp_path):
    import polars

    path = tmp_path / "c.parquet"
    polars.DataFrame({"id": ["a", "b"], "contents": ['"A"\none', "two"]}).write_parquet(path)
    assert list(read_corpus(str(path))) == [CorpusDocument("a", "A", "one"), CorpusDocument("b", "", "two")]


def test_a_folder_of_texts_is_read_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b_c.md").write_text("two")
    (tmp_path / "a.txt").write_text("\ufeffone", "utf-8")
    (tmp_path / "z.pdf").write_bytes(b"\xff")
    assert list(read_corpus(str(tmp_path))) == [
        CorpusDocument("a.txt", "a", "one"),
        CorpusDocument("sub/b_c.md", "b c", "two"),
    ]


def test_the_hash_is_of_the_content_alone(tmp_path):
    first = rows(tmp_path / "one.jsonl", {"id": "a", "title": "", "text": "x"}, {"id": "b", "text": "y"})
    same = rows(tmp_path / "same.jsonl", {"text": "x", "id": "a"}, {"id": "b", "text": "y", "more": 1})
    other = rows(tmp_path / "other.jsonl", {"id": "b", "text": "y"}, {"id": "a", "text": "x"})
    assert corpus_sha256(first) == corpus_sha256(same) != corpus_sha256(other)
    assert re.fullmatch("[0-9a-f]{64}", corpus_sha256(""))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no documents"),
        (b'{"id": "a"}\n', "row 1: neither text nor contents holds a text"),
        (b'{"text": "a"}\n{"text": 7}\n', "row 2: neither text nor contents"),
        (b'{"text": "a", "id": {}}\n', "row 1: id must be text or a number"),
        (b'{"text": "a", "id": true}\n', "row 1: id must be text or a number"),
        (b'{"text": "a", "title": 3}\n', "row 1: id must be text or a number, title must be text"),
        (b'{"text": "a"}\n{"te', "row 2: not valid JSON"),
        (b"[1]\n", "row 1: expected a JSON object"),
    ],
)
def test_malformed_corpus_is_reported_in_one_line(tmp_path, content, message):
    path = tmp_path / "c.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        list(read_corpus(str(path)))
    assert "c.jsonl" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_corpus_is_reported_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"there is no corpus /nowhere: name a folder of texts, or a .jsonl"):
        list(read_corpus("/nowhere"))
    with pytest.raises(InputError, match=r"holds no .txt or .md files"):
        list(read_corpus(str(tmp_path)))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"a.txt cannot be read as UTF-8"):
        list(read_corpus(str(tmp_path)))
    (tmp_path / "c.csv").write_text("a,b")
    with pytest.raises(InputError, match="is of no kind that can be read"):
        list(read_corpus(str(tmp_path / "c.csv")))


def test_contents_are_split_at_the_first_line():
    assert split_contents('"A B"\nc\nd') == ("A B", "c\nd")
    assert split_contents("A\nc") == ("A", "c")
    assert split_contents("only") == ("", "only")
    assert split_contents("only\n") == ("", "only\n")
