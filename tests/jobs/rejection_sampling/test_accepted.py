"""The training data of a run: selected rollouts, reasons for the others, rows, and memory."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.corpus.corpus import index_run, read_corpus
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.rejection_sampling.outcome import SFT, export_accepted
from tests.exports.sample_corpus import lines_of
from tests.generation.run_factory import append, completed_rollout, opened


def export(run):
    """What `write_outcome` does at the end; the outcome, and the rows."""
    done = export_accepted(run, "scripted", index_run(run.directory, run.num_rollout))
    return done, lines_of(run.directory / SFT)


def locations_of(rows):
    return [(row["metadata"]["instance_id"], row["metadata"]["sample_id"]) for row in rows]


def test_rows_are_kept_or_dropped_with_a_reason(tmp_path):
    with opened(tmp_path / "run", rows=1, num_rollout=9) as run:
        append(run.journal, "p0", 0, completion="a")
        append(run.journal, "p0", 1, completion="b")
        append(run.journal, "p0", 3, completion="c")  # 2 is missing
        append(run.journal, "p0", 4, completion="b")
        append(run.journal, "p0", 5, error=0.5, completion="d")
        append(run.journal, "p0", 6, state="unparseable")
        append(run.journal, "p0", 7, state="failed:timeout")
        append(run.journal, "p0", 8, completion=" \n")
        done, rows = export(run)
    assert [sample for _, sample in locations_of(rows)] == [0, 1, 3]
    reasons = {"duplicate_completion": 1, "not_successful": 1, "unparseable": 1, "failed": 1, "empty_completion": 1}
    assert (done.read, done.kept, done.reasons) == (8, 3, reasons)
    assert {row["sample_id"]: row["drop_reason"] for row in lines_of(tmp_path / "run" / "sft.dropped.jsonl")} == {
        4: "duplicate_completion",
        5: "not_successful",
        6: "unparseable",
        7: "failed",
        8: "empty_completion",
    }


def test_keys_of_a_row(tmp_path):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    with opened(tmp_path / "run", rows=1) as run:
        append(run.journal, "p0", 1, completion="the answer", messages=messages)
        _, [row] = export(run)
        identity = run.manifest.identity_key
    assert row == {
        "messages": [*messages, {"role": "assistant", "content": "the answer"}],
        "metadata": {
            "instance_id": "p0",
            "sample_id": 1,
            "seed": 1,
            "reward": 1.0,
            "success": True,
            "model_calls": 1,
            "error": 0.0,
            "verifier": "numeric@1",
            "model": "scripted",
            "identity": identity,
        },
    }


def test_images_are_listed_in_order(tmp_path):
    parts = [
        {"type": "image", "image": "images/b.png", "media_type": "image/png"},
        {"type": "text", "text": "and"},
        {"type": "image", "image": "images/a.png", "media_type": "image/png"},
    ]
    with opened(tmp_path / "run", rows=1) as run:
        append(run.journal, "p0", 0, messages=[{"role": "user", "content": parts}])
        _, [row] = export(run)
    assert row["images"] == ["images/b.png", "images/a.png"]
    assert [part["type"] for part in row["messages"][0]["content"]] == ["image", "text", "image"]


def test_rows_follow_problems_and_duplicates_count_within_one_problem(tmp_path):
    with opened(tmp_path / "run", rows=3) as run:
        for problem, sample in (("p2", 1), ("p0", 1), ("p2", 0), ("p1", 0), ("p0", 0)):
            append(run.journal, problem, sample, completion="same" if sample == 0 else f"{problem} again")
        done, rows = export(run)
    assert locations_of(rows) == [("p0", 0), ("p0", 1), ("p1", 0), ("p2", 0), ("p2", 1)]
    assert done.exported.problems == {"train": 3}


def test_last_attempt_counts_and_surplus_rollouts_are_left_out(tmp_path):
    with opened(tmp_path / "run", rows=1) as run:
        append(run.journal, "p0", 0, state="failed:timeout")
        append(run.journal, "p0", 0, completion="again", attempt=1)
        append(run.journal, "p0", 1, completion="second")
        append(run.journal, "p0", 2, completion="beyond --num_rollout 2")
        done, rows = export(run)
    assert [row["messages"][-1]["content"] for row in rows] == ["again", "second"]
    assert (done.read, done.reasons) == (2, {})


def test_nothing_accepted_is_an_empty_file(tmp_path):
    with opened(tmp_path / "run", rows=1) as run:
        append(run.journal, "p0", 0, error=1.0)
        done, rows = export(run)
    assert (rows, done.kept, done.exported.problems) == ([], 0, {"train": 0})


def test_the_index_reads_like_the_journal(tmp_path):
    with opened(tmp_path / "run", rows=2) as run:
        append(run.journal, "p1", 0)
        append(run.journal, "p0", 1, error=0.5)
        export(run)
        append(run.journal, "p0", 0)
    indexed = read_corpus([str(run.directory)])
    [index] = (run.directory / "rollouts").glob("*.index.parquet")
    index.unlink()
    scanned = read_corpus([str(run.directory)])
    assert indexed.table.equals(scanned.table)
    assert list(indexed.records(indexed.table)) == list(scanned.records(scanned.table))
    assert analyse(indexed.table).rollouts == 3


def test_a_broken_journal_writes_no_file(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk")
        yield b""

    with opened(tmp_path / "run", rows=1) as run:
        append(run.journal, "p0", 0)
        monkeypatch.setattr("rollmill.corpus.corpus.Corpus.records", broken)
        with pytest.raises(OSError, match="disk"):
            export_accepted(run, "m", index_run(run.directory, run.num_rollout))
    assert not list(run.directory.glob("*sft*")), "neither the rows nor a part of them"


STATES = ["ok", "unparseable", "failed:timeout"]
rollouts_of_problems = st.lists(
    st.lists(
        st.tuples(st.sampled_from(STATES), st.sampled_from([0.0, 1.0]), st.sampled_from(["a", "b", "", "é\n\u2028"])),
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(rollouts_of_problems)
def test_kept_and_dropped_add_up_to_all_rollouts(tmp_path_factory, made_rollouts):
    folder = tmp_path_factory.mktemp("run")
    with opened(folder / "run", rows=len(made_rollouts), num_rollout=4) as run:
        for problem, rollouts in enumerate(made_rollouts):
            for sample, (state, error, completion) in enumerate(rollouts):
                fields = {} if state.startswith("failed") else {"completion": completion}
                append(run.journal, f"p{problem}", sample, state=state, error=error, **fields)
        done, rows = export(run)
    assert done.read == sum(map(len, made_rollouts)) == done.kept + sum(done.reasons.values())
    assert len(rows) == done.kept
    accepted = [
        {text for state, error, text in item if (state, error) == ("ok", 0.0) and text} for item in made_rollouts
    ]
    assert done.kept == sum(map(len, accepted))
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)


MEASURE = """
import resource, sys
from pathlib import Path
from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.export_job import export_corpus
from rollmill.jobs.curation.parameters import Sft
from rollmill.jobs.rejection_sampling.outcome import ACCEPTED

def run(name):
    folder = Path(sys.argv[1], name)
    exporter, filters = sft_exporter(folder / "sft.jsonl", Sft(), ACCEPTED)
    kept = export_corpus(read_corpus([str(folder)]), filters, exporter).kept
    return kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

(few, small), (many, large) = run("small"), run("large")
print(few, many, (large - small) // 1024)
"""


def write_run(folder, problems):
    """A run of `problems` times 16 accepted rollouts of 3 kB."""
    with opened(folder, rows=problems, num_rollout=16):
        pass
    line = completed_rollout("p", 0).line.replace(b"<answer>0</answer>", b"%d" + b"x" * 3000)
    line = line.replace(b'"instance_id":"p","sample_id":0', b'"instance_id":"p%d","sample_id":%d')
    with (folder / "rollouts" / "0001.jsonl").open("wb") as journal:
        for problem in range(problems):
            journal.writelines(line % (problem, sample, sample) for sample in range(16))


@pytest.mark.slow
def test_memory_of_a_hundred_thousand_rollouts(tmp_path):
    write_run(tmp_path / "small", 63)
    write_run(tmp_path / "large", 6250)
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    few, many, megabytes = map(int, done.stdout.split())
    assert (few, many) == (1008, 100_000)
    assert megabytes < 120, "megabytes more for 100,000 rollouts, which are 340 in their journal, than for 1,000"
