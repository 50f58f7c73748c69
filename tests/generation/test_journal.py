import logging
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError, RunStoppedError
from tests.generation.run_factory import append, completed_rollout, journaled, open_journal

_UNTIL_FULL = 10_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rollouts" / "0001.jsonl"


def test_rows_come_back_by_sample(path):
    with open_journal(path) as journal:
        append(journal, "p", 2)
        append(journal, "q", 0, state="failed:http_400")
        append(journal, "p", 0)
        written = journal.group("p", 4), journal.group("q", 1), journal.group("r", 2)
    assert written == (
        [journaled("p", 0), None, journaled("p", 2), None],
        [journaled("q", state="failed:http_400")],
        [None] * 2,
    )
    with open_journal(path) as journal:
        assert (journal.group("p", 4), journal.group("q", 1), journal.group("r", 2)) == written
        assert journal.group("p", 1) == [journaled("p", 0)]
        assert (journal.size("p"), journal.size("q"), journal.size("r")) == (3, 1, 0)
        assert journal.tally.counts() == (3, 2, 0, 1)


def test_the_later_row_counts(path):
    with open_journal(path) as journal:
        append(journal, state="failed")
        append(journal, attempt=1)
    with open_journal(path) as journal:
        assert journal.group("p", 1) == [journaled(attempt=1)]
        assert journal.tally.done == 1
    assert len(path.read_bytes().splitlines()) == 2


def test_a_row_is_in_the_file_before_append_returns(path):
    with open_journal(path) as journal:
        line = append(journal)
        assert path.read_bytes() == line


def test_a_line_of_10_mb(path):
    long = "x" * 10_000_000
    with open_journal(path) as journal:
        append(journal, completion=long)
        append(journal, "p", 1)
        assert [rollout.completion for rollout in journal.group("p", 2)] == [long, "<answer>1</answer>"]
    with open_journal(path) as journal:
        assert journal.group("p", 1)[0].completion == long


ROWS = [completed_rollout("p", index, completion="x" * size) for index, size in enumerate([0, 3, 900, 70_000, 1])]
CONTENT = b"".join(row.line for row in ROWS)
ENDS = [sum(len(row.line) for row in ROWS[: count + 1]) for count in range(len(ROWS))]


@given(st.integers(0, len(CONTENT)) | st.sampled_from([end + by for end in ENDS for by in (-1, 0, 1)]))
def test_a_file_torn_anywhere_keeps_every_whole_line(cut):
    complete = sum(end <= cut for end in ENDS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_bytes(CONTENT[:cut])
        with open_journal(path) as journal:
            assert journal.tally.done == complete
            assert journal.repaired_bytes == min(cut, len(CONTENT)) - (ENDS[complete - 1] if complete else 0)
            assert journal.garbage_lines == []
            append(journal, "q", 0)
        with open_journal(path) as journal:
            assert (journal.tally.done, journal.repaired_bytes, journal.garbage_lines) == (complete + 1, 0, [])
            assert [rollout.completion for rollout in journal.group("p", complete)] == [
                "x" * n for n in [0, 3, 900, 70_000, 1][:complete]
            ]
            assert journal.group("q", 1) == [journaled("q")]


def test_repair_is_reported(path, caplog):
    path.parent.mkdir()
    path.write_bytes(ROWS[0].line + ROWS[1].line[:-1])
    with caplog.at_level(logging.WARNING):
        open_journal(path).close()
    assert "the last line was torn" in caplog.text
    assert path.read_bytes() == ROWS[0].line


GARBAGE = [
    b"",
    b"garbage",
    b"\x00" * 5000,
    b"\xff\xfe\x00",
    b"null",
    b"[1, 2]",
    b"{}",
    ROWS[0].line[:-20],
    ROWS[0].line.replace(b'"sample_id":0', b'"sample_id":-1'),
    ROWS[0].line.replace(b'"sample_id":0', b'"sample_id":"0"'),
    ROWS[0].line.replace(b'"sample_id":0', b'"sample_id":true'),
    ROWS[0].line.replace(b'"sample_id":0', b'"sample_id":1000000000000'),
    ROWS[0].line.replace(b'"instance_id":"p"', b'"instance_id":7'),
    ROWS[0].line.replace(b'"max_tokens":100', b'"max_tokens":"many"'),
    ROWS[0].line.replace(b'"max_tokens":100', b'"max_tokens":1e300'),
    ROWS[0].line.replace(b'"attempt":0', b'"attempt":null'),
    ROWS[0].line.replace(b'"attempt":0', b'"attempt":-1'),
    ROWS[0].line.replace(b'"prompt_tokens":3', b'"prompt_tokens":"3"'),
    ROWS[0].line.replace(b'"latency_s":0.5', b'"latency_s":"0.5"'),
    ROWS[0].line.replace(b'"error":0.0', b'"error":"0.0"'),
    ROWS[0].line.replace(b'"status":"ok"', b'"status":"fine"'),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_garbage_line_is_passed_over_and_counted(path, garbage, caplog):
    path.parent.mkdir()
    content = ROWS[1].line + garbage.rstrip(b"\n") + b"\n" + ROWS[2].line
    path.write_bytes(content)
    with open_journal(path) as journal:
        assert journal.garbage_lines == [2]
        assert journal.tally.done == 2
        assert [rollout and rollout.sample_id for rollout in journal.group("p", 3)] == [None, 1, 2]
    assert "1 lines are not rollouts and are skipped: 2" in caplog.text
    assert path.read_bytes() == content


def test_a_row_that_is_almost_a_rollout_is_named(path):
    path.parent.mkdir()
    path.write_bytes(ROWS[0].line.replace(b'"messages"', b'"messengers"'))
    with (
        open_journal(path) as journal,
        pytest.raises(InputError, match=r"0001\.jsonl: a row of p, at byte 0, is not a rollout: messages"),
    ):
        journal.group("p", 1)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_garbage_at_all(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n" + ROWS[0].line)
        with open_journal(path) as journal:
            assert journal.tally.done == 1


RETRIES = [
    # state, finish_reason, attempt and max_tokens of the row; retry, max_tokens now; the attempt to make
    (("ok", "stop", 0, 100), None, 100, None),
    (("ok", "stop", 0, 100), "failed", 200, None),
    (("ok", "stop", 0, 100), "truncated", 200, None),
    (("unparseable", "stop", 0, 100), "failed", 200, None),
    (("failed", "stop", 0, 100), None, 200, None),
    (("failed", "stop", 0, 100), "truncated", 100, None),
    (("failed", "stop", 2, 100), "failed", 100, 2),
    (("unparseable", "length", 0, 100), None, 100, None),
    (("unparseable", "length", 0, 100), "failed", 100, None),
    (("unparseable", "length", 0, 100), "truncated", 100, 1),
    (("unparseable", "length", 4, 100), "truncated", 100, 5),
    (("unparseable", "length", 4, 100), "truncated", 200, 4),
    (("unparseable", "length", 4, 100), None, 200, 4),
    (("unparseable", "length", 4, 200), None, 100, None),
]


@pytest.mark.parametrize(("row", "retry", "max_tokens", "attempt"), RETRIES)
def test_attempt_number_follows_retry_and_limit(path, row, retry, max_tokens, attempt):
    state, finish_reason, before, limit = row
    with open_journal(path) as journal:
        append(journal, state=state, finish_reason=finish_reason, attempt=before, max_tokens=limit)
        assert journal.attempt_for("p", 0, retry=retry, max_tokens=max_tokens) == attempt
        for other in (("p", 1), ("q", 0)):
            assert journal.attempt_for(*other, retry=retry, max_tokens=max_tokens) == 0
    with open_journal(path) as journal:
        assert journal.attempt_for("p", 0, retry=retry, max_tokens=max_tokens) == attempt


def fill(folder, left):
    """Leaves `left` bytes, in whole pages, on a small file system."""
    with (folder / "filler").open("wb") as file:
        state = os.statvfs(folder)
        file.write(bytes(state.f_bavail * state.f_bsize - left))


@pytest.mark.parametrize("size", [10, 300, 5000])
def test_a_full_disk_stops_with_a_whole_last_line(small_disk, size):
    path = small_disk / "journal.jsonl"
    with open_journal(path) as journal:
        fill(small_disk, 16384)
        written = []
        with pytest.raises(RunStoppedError, match=r"cannot write .*journal\.jsonl: the disk is full; free some space"):
            written.extend(append(journal, "p", index, completion="x" * size) for index in range(_UNTIL_FULL))
        assert path.read_bytes() == b"".join(written)
        assert len(written) >= 2
        (small_disk / "filler").unlink()
        written.append(append(journal, "p", len(written), completion="y" * size))
        assert path.read_bytes() == b"".join(written)
        assert journal.group("p", len(written))[-1].completion == "y" * size
    with open_journal(path) as journal:
        assert (journal.tally.done, journal.repaired_bytes, journal.garbage_lines) == (len(written), 0, [])


def test_close_closes_the_file_even_if_the_sync_fails(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal = open_journal(path)
    journal.sync()
    assert not synced
    append(journal)
    journal.close()
    assert len(synced) == 1

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    journal = open_journal(path)
    append(journal, "p", 1)
    with pytest.raises(RunStoppedError, match=r"cannot write .* to disk: .*Input/output error"):
        journal.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == opened
