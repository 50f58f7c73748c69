"""Reading with a quarantine."""

import orjson
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.corpus.inputs import Source
from rollmill.files.rows import BadRow
from rollmill.jobs.curation.reading import open_quarantine, reading

SOURCE = Source("in.jsonl", "lines")
GOOD = b'{"instance_id": "p", "reward": 1}\n'


def bad(number):
    return BadRow(number, "reward" if number % 2 else None, f"reason {number}", f"raw {number}")


def test_empty_quarantine_writes_no_file_and_no_message(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("an earlier call's")
    with open_quarantine(path) as quarantine:
        pass
    assert quarantine.lines() == []
    assert list(tmp_path.iterdir()) == []


def test_each_row_has_its_place_and_reason(tmp_path):
    path = tmp_path / "new" / "q.jsonl"
    with open_quarantine(path) as quarantine:
        quarantine(SOURCE, bad(1))
        quarantine(Source("b.json", "document"), BadRow(2, None, "no JSON", "\x00\xff" + "x" * 5000))
        assert not path.exists()
    assert [orjson.loads(line) for line in path.read_bytes().splitlines()] == [
        {"source": "in.jsonl", "row": 1, "field": "reward", "reason": "reason 1", "raw": "raw 1"},
        {"source": "b.json", "row": 2, "field": None, "reason": "no JSON", "raw": "\x00\xff" + "x" * 1998},
    ]
    assert quarantine.lines() == [
        f"2 rows could not be used; they are in {path}",
        "  in.jsonl: row 1: reward: reason 1",
        "  b.json: row 2: no JSON",
    ]


def test_first_five_rows_are_listed_and_others_counted():
    with open_quarantine() as quarantine:
        for number in range(1, 1241):
            quarantine(SOURCE, bad(number))
        quarantine.note("and a note")
    assert quarantine.count == 1240
    lines = quarantine.lines()
    assert lines[0] == "1,240 rows could not be used"
    assert lines[1:3] == ["  in.jsonl: row 1: reward: reason 1", "  in.jsonl: row 2: reason 2"]
    assert lines[5:] == ["  in.jsonl: row 5: reward: reason 5", "  ... and 1,235 more", "and a note"]


def test_just_five(tmp_path):
    with open_quarantine() as quarantine:
        for number in range(5):
            quarantine(SOURCE, bad(number))
    assert len(quarantine.lines()) == 6


def test_a_note_alone():
    with open_quarantine() as quarantine:
        quarantine.note("a note")
    assert quarantine.lines() == ["a note"]


def test_a_job_that_fails_leaves_no_half_file(tmp_path):
    path = tmp_path / "q.jsonl"

    def job():
        with open_quarantine(path) as quarantine:
            quarantine(SOURCE, bad(1))
            raise RuntimeError("job")

    with pytest.raises(RuntimeError, match="job"):
        job()
    assert list(tmp_path.iterdir()) == []


def test_quarantine_collects_bad_rows_of_a_corpus(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(GOOD + b"\xff\n" + GOOD + b"[]\n")
    with open_quarantine(tmp_path / "q.jsonl") as quarantine:
        corpus = read_corpus([str(path)], quarantine)
    assert (corpus.table.height, corpus.quarantined, quarantine.count) == (2, 2, 2)
    rows = [orjson.loads(line) for line in (tmp_path / "q.jsonl").read_bytes().splitlines()]
    assert [(row["source"], row["row"], row["raw"]) for row in rows] == [(str(path), 2, "\\xff"), (str(path), 4, "[]")]


def test_reading_for_an_output(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_bytes(GOOD + b"x\n" + b'{"instance_id": "p", "reward": NaN}\n')
    with reading([str(path)], tmp_path / "out.jsonl") as corpus:
        assert corpus.table["reward"].to_list() == [1.0, None]
    aside = tmp_path / "out.quarantine.jsonl"
    assert len(aside.read_bytes().splitlines()) == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == f"1 row could not be used; they are in {aside}"
    assert second.startswith(f"  {path}: row 2: not valid JSON in UTF-8: ")
    assert third == (
        "1 records held NaN or Infinity, read as null, or lone surrogates, read as ?: neither is JSON in UTF-8"
    )


def test_reading_without_an_output_writes_nothing(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_bytes(GOOD)
    with reading([str(path)]) as corpus:
        assert corpus.table.height == 1
    assert list(tmp_path.iterdir()) == [path]
    assert capsys.readouterr().err == ""
