"""The index of a journal: when it is used, written and refused."""

import os
import random
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rollmill.corpus import journal_index
from rollmill.corpus.corpus import index_run, read_corpus
from rollmill.corpus.journal_index import Indexed, JournalState, index_path, read_index
from rollmill.corpus.scan import COLUMNS, Scan
from tests.corpus.sample_records import lines, make_run, record, without_places
from tests.generation.run_factory import append, opened

ROWS = [record("a", 0), record("b", 1), record("b", 0), record("a", 1)]


@pytest.fixture
def journal(tmp_path):
    return make_run(tmp_path / "run", ROWS)


def read(journal):
    corpus = read_corpus([str(journal.parent.parent)])
    return corpus, corpus.table.select("instance_id", "sample_id", "reward").rows()


@contextmanager
def no_row_scanned():
    """A row that is scanned fails: what is read comes from the index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scan, "add", None)
        yield


def settle(journal):
    """Lets the clock of the file system go on, so that the next change is another one."""
    while not JournalState.of(journal).settled:
        time.sleep(0.005)


def index(journal):
    settle(journal)
    return index_run(journal.parent.parent, 1000)


def edit(journal, old, new, *, hide=True):
    """Changes rows in place; `hide` makes the file look as old as before."""
    before = journal.stat()
    content = journal.read_bytes()
    assert old in content
    assert len(old) == len(new)
    with journal.open("r+b") as file:
        file.write(content.replace(old, new))
    if hide:
        os.utime(journal, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (journal.stat().st_size, journal.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def many(count=200):
    return [record(problem, sample, answer="x" * 40) for sample in range(count // 2) for problem in ("a", "b")]


def test_the_latest_row_counts_in_the_order_of_problems(tmp_path):
    rows = [
        *ROWS,
        record("a", 0, reward=0.0),
        record("z", 0),
        record("b", 1, error="timeout"),
        record("b", 1, reward=0.5),
    ]
    journal = make_run(tmp_path / "run", rows)
    corpus, result = read(journal)
    assert result == [("b", 0, 1.0), ("b", 1, 0.5), ("a", 0, 0.0), ("a", 1, 1.0), ("z", 0, 1.0)]
    assert [orjson.loads(item) for item in corpus.records(corpus.table)] == [
        rows[2],
        rows[7],
        rows[4],
        rows[3],
        rows[5],
    ]
    assert corpus.table["number"].to_list() == [3, 8, 5, 4, 6]


def test_unfinished_last_line_is_no_row(journal):
    full = read(journal)[1]
    content = journal.read_bytes()
    for torn in (b"{", orjson.dumps(record("a", 0, reward=0.0)), b'\xff"'):
        journal.write_bytes(content + torn)
        corpus, result = read(journal)
        assert result == full
        assert corpus.quarantined == 0


def test_bad_rows_of_a_journal_are_reported(tmp_path):
    journal = make_run(tmp_path / "run", [ROWS[0], b"garbage", b"", ROWS[1]])
    bad = []
    corpus = read_corpus([str(tmp_path / "run")], lambda source, row: bad.append((source.run, row.number)))
    assert bad == [(tmp_path / "run", 2)]
    assert corpus.table["number"].to_list() == [4, 1]
    index_run(tmp_path / "run", 2)
    assert not index_path(journal).exists()
    assert read_corpus([str(tmp_path / "run")]).quarantined == 1


def test_index_replaces_scanning_of_covered_rows(tmp_path):
    journal = make_run(tmp_path / "run", many())
    scanned, _ = read(journal)
    assert_frame_equal(index_run(tmp_path / "run", 1000).table, scanned.table)
    with no_row_scanned():
        indexed, _ = read(journal)
    assert_frame_equal(indexed.table, scanned.table)
    assert indexed.quarantined == 0


def test_unchanged_journal_is_not_hashed(tmp_path, monkeypatch):
    journal = make_run(tmp_path / "run", many())
    index(journal)
    monkeypatch.setattr(journal_index, "_content_hash", None)
    with no_row_scanned():
        assert read(journal)[0].table.height == 200


def test_index_of_a_fresh_journal_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_index, "_CLOCK_STEP_NS", 3600 * 10**9)
    journal = make_run(tmp_path / "run", many())
    index_run(tmp_path / "run", 1000)
    with no_row_scanned():
        assert read(journal)[0].table.height == 200
    edit(journal, b'"reward":1.0', b'"reward":0.0')
    assert sum(reward for _, _, reward in read(journal)[1]) == 0.0


def test_a_copied_run_has_its_index(tmp_path):
    index(make_run(tmp_path / "run", many()))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with no_row_scanned():
        assert read_corpus([str(tmp_path / "copy")]).table.height == 200


def replace_by_rename(journal):
    other = journal.with_name("other")
    other.write_bytes(journal.read_bytes().replace(b'"reward":1.0', b'"reward":0.5'))
    shutil.copystat(journal, other)
    other.rename(journal)


def swap_rows(journal):
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    edit(journal, journal.read_bytes(), b"".join([*rest, first]))


def cut_and_grow(journal):
    before = journal.stat()
    content = journal.read_bytes()
    os.truncate(journal, len(content) // 2)
    with journal.open("ab") as file:
        file.write(content[len(content) // 2 :].replace(b'"reward":1.0', b'"reward":0.5'))
    os.utime(journal, ns=(before.st_atime_ns, before.st_mtime_ns))


def take_index_of_another_run(journal):
    other = make_run(journal.parent.parent.parent / "other", many()[::-1])
    index(other)
    assert other.stat().st_size == journal.stat().st_size
    shutil.copy2(index_path(other), index_path(journal))


CHANGES = {
    "a reward in the first row": lambda journal: edit(journal, ROW_0, ROW_0.replace(b'"reward":1.0', b'"reward":0.5')),
    "all rewards": lambda journal: edit(journal, b'"reward":1.0', b'"reward":0.5'),
    "all rewards, openly": lambda journal: edit(journal, b'"reward":1.0', b'"reward":0.5', hide=False),
    "an answer": lambda journal: edit(journal, b"x" * 40, b"y" * 40),
    "swapped rows": swap_rows,
    "renamed over it": replace_by_rename,
    "cut and grown": cut_and_grow,
    "index of another run": take_index_of_another_run,
}
ROW_0 = orjson.dumps(record("a", 0, answer="x" * 40))


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_edited_rows_are_scanned_again(tmp_path, change, grown):
    journal = make_run(tmp_path / "run", many())
    index(journal)
    change(journal)
    if grown:
        with journal.open("ab") as file:
            file.write(lines([record("a", 500, reward=0.25)]))
    result = read(journal)[0]
    index_path(journal).unlink()
    now = read(journal)[0]
    assert_frame_equal(result.table, now.table)
    assert list(result.records(result.table)) == list(now.records(now.table))


def test_journal_changed_during_indexing_gets_no_index(tmp_path, monkeypatch):
    journal = make_run(tmp_path / "run", many())
    settle(journal)
    table = Scan.table

    def edited_meanwhile(scan):
        edit(journal, b'"reward":1.0', b'"reward":0.5')
        return table(scan)

    monkeypatch.setattr(Scan, "table", edited_meanwhile)
    index_run(tmp_path / "run", 1000)
    assert not index_path(journal).exists()


def test_index_run_counts_the_first_rollouts_and_indexes_all(journal):
    run = journal.parent.parent
    assert index_run(run, 1).table.select("instance_id", "sample_id").rows() == [("b", 0), ("a", 0)]
    assert read_index(journal).table.height == 4
    assert (read_index(journal).covered, read_index(journal).lines) == (journal.stat().st_size, 4)
    assert read(journal)[0].table.height == 4


def test_rows_appended_after_the_index_are_read(journal):
    run = journal.parent.parent
    index_run(run, 2)
    with journal.open("ab") as file:
        file.write(b"\n" + lines([record("a", 0, reward=0.25), record("b", 2)]) + b'{"torn')
    corpus, result = read(journal)
    assert result == [("b", 0, 1.0), ("b", 1, 1.0), ("b", 2, 1.0), ("a", 0, 0.25), ("a", 1, 1.0)]
    assert corpus.table["number"].to_list() == [3, 2, 7, 6, 4]
    assert [orjson.loads(item)["reward"] for item in corpus.records(corpus.table)] == [1.0, 1.0, 1.0, 0.25, 1.0]
    index_run(run, 2)
    assert read_index(journal).lines == 7
    assert read(journal)[1] == result


def test_bad_rows_after_the_index_do_not_change_it(journal):
    index_run(journal.parent.parent, 2)
    with journal.open("ab") as file:
        file.write(b"garbage\n")
    index_run(journal.parent.parent, 2)
    assert read_index(journal).lines == 4
    for _ in range(2):
        corpus, _result = read(journal)
        assert (corpus.table.height, corpus.quarantined) == (4, 1)


@pytest.mark.parametrize("case", ["cut", "cut to a line", "other", "cut and grown", "empty", "one byte"])
def test_an_index_of_another_journal_is_not_used(journal, case):
    index_run(journal.parent.parent, 2)
    content = journal.read_bytes()
    other = lines([record("b", 0, reward=0.5), record("a", 0, reward=0.5)])
    changed = {
        "cut": content[:-3],
        "cut to a line": lines(ROWS[:3]),
        "other": other,
        "cut and grown": lines(ROWS[:2]) + other + other,
        "empty": b"",
        "one byte": content[:-40].replace(b"1.0", b"0.5") + content[-40:],
    }[case]
    journal.write_bytes(changed)
    assert read_index(journal) is None
    result = read(journal)[1]
    index_path(journal).unlink()
    assert read(journal)[1] == result


def test_an_index_of_another_version_is_not_used(journal, monkeypatch):
    index_run(journal.parent.parent, 2)
    assert read_index(journal) is not None
    monkeypatch.setattr(journal_index, "VERSION", "next")
    assert read_index(journal) is None
    index_run(journal.parent.parent, 2)
    assert read_index(journal) is not None


def test_an_index_with_other_columns_is_not_used(journal):
    index_run(journal.parent.parent, 2)
    table = read_index(journal).table
    size = journal.stat().st_size
    for other in (
        table.drop("reward"),
        table.with_columns(pl.col("reward").cast(pl.String)),
        table.select(reversed(table.columns)),
    ):
        journal_index.write_index(journal, Indexed(other, size, 4), JournalState.of(journal))
        result = read_index(journal)
        assert result is None or result.table.schema == COLUMNS
        assert len(read(journal)[1]) == 4


def test_a_damaged_index_is_not_used(tmp_path):
    journal = make_run(tmp_path / "run", many(40))
    index_run(tmp_path / "run", 100)
    full, table = index_path(journal).read_bytes(), read_index(journal).table
    size_of_journal = journal.stat().st_size
    chance = random.Random(0)
    damaged = [b"", b"PAR1", b"PAR1PAR1", b"x" * 1000, full[:-1], full[: len(full) // 2], full[4:], full + b"x"]
    for _ in range(300):
        at, size = chance.randrange(len(full)), chance.choice([1, 1, 40])
        damaged.append(full[:at] + chance.randbytes(size) + full[at + size :])
    unused = 0
    for content in damaged:
        index_path(journal).write_bytes(content)
        result = read_index(journal)
        unused += result is None
        assert result is None or (result.table.equals(table) and result[1:] == (size_of_journal, 40))
    assert 250 < unused < len(damaged)  # a few bytes of it are never looked at
    index_path(journal).write_bytes(damaged[0])
    assert read(journal)[0].table.height == 40


@pytest.mark.parametrize("swap", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere/at/all")])
def test_index_that_is_no_regular_file_is_not_used(journal, swap):
    swap(index_path(journal))
    assert read_index(journal) is None
    assert len(read(journal)[1]) == 4


def test_an_empty_journal(tmp_path):
    journal = make_run(tmp_path / "run", [])
    assert index_run(tmp_path / "run", 2).table.height == 0
    assert read_index(journal).covered == 0
    assert read(journal)[1] == []
    journal.write_bytes(lines(ROWS))
    assert len(read(journal)[1]) == 4


def test_a_run_of_the_engine(tmp_path):
    with opened(tmp_path / "run", rows=3) as run:
        for instance_id, sample_id, state in (("p2", 0, "ok"), ("p0", 1, "failed:timeout"), ("p0", 0, "unparseable")):
            append(run.journal, instance_id, sample_id, state=state)
        append(run.journal, "p0", 1, attempt=1)
    scanned = read_corpus([str(tmp_path / "run")])
    facts = scanned.table.select("instance_id", "sample_id", "status", "success", "reward", "prompt_tokens", "tokens")
    assert facts.rows() == [
        ("p0", 0, "unparseable", False, 0.0, 3, 8),
        ("p0", 1, "ok", True, 1.0, 3, 8),
        ("p2", 0, "ok", True, 1.0, 3, 8),
    ]
    assert scanned.table["turns"].to_list() == [1, 1, 1]
    index_run(tmp_path / "run", 2)
    assert_frame_equal(without_places(read_corpus([str(tmp_path / "run")]).table), without_places(scanned.table))
