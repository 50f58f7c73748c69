"""Columns computed from texts."""

import orjson
import polars as pl
import pytest

from rollmill.corpus.table import SCHEMA
from rollmill.jobs.curation import text_features as module
from rollmill.jobs.curation.contamination import Benchmarks
from rollmill.jobs.curation.signatures import signatures
from rollmill.jobs.curation.text_features import with_text_features

QUESTION = "How many primes are below one hundred?"


class Stored:
    """A corpus of records held in memory."""

    def __init__(self, records):
        self._records = [orjson.dumps(record) for record in records]
        built = {"row": range(len(records)), "instance_id": ["p"] * len(records), "tokens": [77] * len(records)}
        blank = {name: [None] * len(records) for name in SCHEMA}
        self.table = pl.DataFrame({**blank, **built}, schema=SCHEMA)
        self.read = []

    def records(self, table):
        for row in table["row"]:
            self.read.append(row)
            yield self._records[row]


class Words:
    """Counts words, and which messages it was given."""

    def __init__(self):
        self.conversations = []

    def count(self, conversations):
        self.conversations += conversations
        return [sum(len((turn["content"] or "").split()) for turn in turns) for turns in conversations]


def dialog(answer, question="Why?"):
    return {
        "instance_id": "p",
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, "extra": {"a": 1}},
        ],
    }


RECORDS = [
    dialog("a b"),
    dialog("c", QUESTION),
    {"instance_id": "p"},
    dialog(""),
    dialog(QUESTION),
    dialog("d e f"),
]


@pytest.fixture
def corpus():
    return Stored(RECORDS)


@pytest.fixture
def benchmarks(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text(QUESTION)
    return Benchmarks.read([str(path)])


@pytest.mark.parametrize("batch", [1, 200, 1 << 20])
def test_all_columns_in_one_reading(corpus, benchmarks, monkeypatch, batch):
    monkeypatch.setattr(module, "_BATCH_BYTES", batch)
    counter = Words()
    alive = pl.Series([True, True, True, True, True, False])
    table = with_text_features(corpus, corpus.table, alive, signatures=True, benchmarks=benchmarks, counter=counter)
    assert corpus.read == [0, 1, 2, 3, 4]
    assert table.columns == [*SCHEMA, "signature", "contaminated_by"]
    assert table["row"].to_list() == list(range(6))
    assert table["signature"].to_list() == [*signatures(["a b", "c"]), None, None, *signatures([QUESTION]), None]
    assert table["contaminated_by"].to_list() == [None, "b.txt:1", None, None, "b.txt:1", None]
    assert table["tokens"].to_list() == [3, 8, None, 1, 8, None]
    assert counter.conversations[0] == [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "a b"}]
    assert table.schema["signature"] == pl.List(pl.UInt32())
    assert table.drop("signature", "contaminated_by", "tokens").equals(corpus.table.drop("tokens"))


def test_only_requested_columns(corpus):
    alive = pl.Series([True] * 6)
    assert with_text_features(corpus, corpus.table, alive).equals(corpus.table)
    assert corpus.read == []
    table = with_text_features(corpus, corpus.table, alive, signatures=True)
    assert table.columns == [*SCHEMA, "signature"]
    assert table["tokens"].to_list() == [77] * 6


def test_again_and_of_a_part_of_the_table(corpus):
    part = corpus.table[[1, 4]]
    table = with_text_features(corpus, part, pl.Series([None, True]), signatures=True)
    assert table["signature"].to_list() == [None, *signatures([QUESTION])]
    again = with_text_features(corpus, table, pl.Series([True, False]), signatures=True)
    assert again.columns == table.columns
    assert again["signature"].to_list() == [*signatures(["c"]), None]


def test_no_rows_to_read(corpus):
    table = with_text_features(corpus, corpus.table, pl.Series([False] * 6), signatures=True, counter=Words())
    assert (corpus.read, table.height, table["tokens"].null_count(), table["signature"].null_count()) == ([], 6, 6, 6)


def test_missing_record_is_a_bug(corpus):
    corpus.records = lambda table: iter([orjson.dumps(RECORDS[0])])
    with pytest.raises(RuntimeError, match="1 records read for 6 rows"):
        with_text_features(corpus, corpus.table, pl.Series([True] * 6), signatures=True)
