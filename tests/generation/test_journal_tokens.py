"""A line in a journal implies its token record, however the process or the machine ended."""

from __future__ import annotations

import os
import tempfile
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import RunStoppedError
from rollmill.generation.token_file import TokenReader
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from tests.generation.run_factory import completed_rollout, open_journal

SOURCE = TokenSource("0123456789abcdef", "processed_logprobs")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run/rollouts/0001.jsonl"


def sampled(*ids):
    return SampledTokens(array("I", [1, 2, 3]), array("I", ids), array("f", [-0.5] * len(ids)), SOURCE)


def append(journal, sample_id, **fields):
    journal.append(completed_rollout("p", sample_id, **fields)._replace(tokens=(sampled(sample_id, 7), sampled(8))))


def fill(journal):
    for sample_id in range(10_000):
        append(journal, sample_id, completion="x" * 1000)


def tokens_of(journal, sample_id):
    rollout = journal.group("p", sample_id + 1)[sample_id]
    reader = TokenReader(journal.path.parent)
    try:
        return tuple(reader.read(rollout.tokens, "p", sample_id).calls)
    finally:
        reader.close()


def test_a_row_names_its_tokens(path):
    with open_journal(path) as journal:
        append(journal, 0)
        append(journal, 1)
        journal.append(completed_rollout("p", 2))
        assert tokens_of(journal, 1) == (sampled(1, 7), sampled(8))
        assert journal.group("p", 3)[2].tokens is None


def test_a_run_without_tokens_has_no_file_of_them(path):
    with open_journal(path) as journal:
        journal.append(completed_rollout("p", 0))
    assert [file.name for file in path.parent.iterdir()] == ["0001.jsonl"]


def test_tokens_are_on_disk_before_their_lines(path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fdatasync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    with open_journal(path) as journal:
        append(journal, 0)
        journal.sync()
        assert synced == ["0001.tokens", "0001.jsonl"]


def test_tokens_without_a_line_are_cut_off(path):
    with open_journal(path) as journal:
        append(journal, 0)
    lines, size = path.read_bytes(), path.with_suffix(".tokens").stat().st_size
    with open_journal(path) as journal:
        append(journal, 1)
    path.write_bytes(lines)  # killed between the two writes
    with open_journal(path) as journal:
        assert path.with_suffix(".tokens").stat().st_size == size
        append(journal, 1)
        assert tokens_of(journal, 1) == (sampled(1, 7), sampled(8))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.data())
def test_after_a_crash_rows_have_tokens_or_are_sampled_again(kept, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run/rollouts/0001.jsonl")
        ends = []
        with open_journal(path) as journal:
            for sample_id in range(6):
                append(journal, sample_id)
                ends.append(path.with_suffix(".tokens").stat().st_size)
        tokens = path.with_suffix(".tokens").read_bytes()
        cut = data.draw(st.integers(ends[kept - 1] if kept else 0, ends[kept] - 1))
        zeros = data.draw(st.booleans())  # of a file whose length reached the disk before its content
        path.with_suffix(".tokens").write_bytes(tokens[:cut] + b"\0" * ((len(tokens) - cut) * zeros))
        with open_journal(path) as journal:
            attempts = [journal.attempt_for("p", sample_id, retry=None, max_tokens=100) for sample_id in range(6)]
            assert attempts == [None] * kept + [0] * (6 - kept)
            for sample_id in range(kept, 6):
                append(journal, sample_id)
            assert [tokens_of(journal, i) for i in range(6)] == [(sampled(i, 7), sampled(8)) for i in range(6)]


def test_rows_with_deleted_tokens_still_count(path, caplog):
    with open_journal(path) as journal:
        append(journal, 0)
        append(journal, 1)
    path.with_suffix(".tokens").unlink()
    with open_journal(path) as journal:
        assert journal.tally.done == 2
        append(journal, 2)
    assert "the tokens of 2 rows are missing" in caplog.text
    with open_journal(path) as journal:
        assert journal.tally.done == 3
        assert tokens_of(journal, 2) == (sampled(2, 7), sampled(8))


def test_a_full_disk_stops_with_tokens_and_lines_whole(small_disk):
    path = small_disk / "run/rollouts/0001.jsonl"
    with open_journal(path) as journal:
        state = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes(state.f_bavail * state.f_bsize - 65536))
        with pytest.raises(RunStoppedError, match="the disk is full"):
            fill(journal)
        count = journal.tally.done
    assert count
    with open_journal(path) as journal:
        assert journal.tally.done == count
        assert tokens_of(journal, count - 1) == (sampled(count - 1, 7), sampled(8))


def test_tokens_that_were_moved_away_stop_the_run(path):
    with open_journal(path) as journal:
        append(journal, 0)
        path.with_suffix(".tokens").rename(path.with_suffix(".moved"))
        with pytest.raises(RunStoppedError, match=r"0001\.tokens was moved"):
            journal.sync()
        path.with_suffix(".moved").rename(path.with_suffix(".tokens"))


def test_tokens_that_were_renamed_with_their_journal_are_kept(path):
    with open_journal(path) as journal:
        append(journal, 0)
    renamed = path.with_name("0007.jsonl")
    size = path.with_suffix(".tokens").stat().st_size
    path.rename(renamed)
    path.with_suffix(".tokens").rename(renamed.with_suffix(".tokens"))
    with open_journal(renamed) as journal:
        append(journal, 1)
        assert tokens_of(journal, 1) == (sampled(1, 7), sampled(8))
        assert journal.tally.done == 2
        assert renamed.with_suffix(".tokens").stat().st_size > size
