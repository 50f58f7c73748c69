"""Filtering of files of every kind: the written records, and no files after errors."""

import errno
import gzip
import json
import os
import subprocess
import sys

import orjson
import polars as pl
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.files.io import open_binary
from rollmill.jobs.curation import apply_filters
from rollmill.jobs.curation.apply_filters import filter_corpus
from rollmill.jobs.curation.dropped import dropped_path, positions_path
from rollmill.jobs.curation.export_job import export_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft
from tests.exports.sample_corpus import lines_of, rollout
from tests.generation.run_factory import append, opened

KINDS = [".json", ".jsonl", ".json.gz", ".jsonl.gz", ".json.zst", ".jsonl.zst"]
GOOD = Filters(min_reward=0.5)
RECORDS = [
    b'{"instance_id": "p0", "reward": 1.0,  "success": true, "model_calls": 3, "x": [1e2, "\\u00e9"]}',
    b'{"reward":0.25,"instance_id":"p0","success":false,"model_calls":2,"big":123456789012345678901234567890}',
    '{"instance_id":"ü","reward":0.5,"n":"say \\"drop_reason\\": no","smile":"\\ud83d\\ude00","messages":[]}'.encode(),
    b'{"instance_id":"p1","reward":null,"error":{"type":"timeout","message":"m"}}',
]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(RECORDS))
    return str(path)


def unpacked(path):
    with open_binary(str(path)) as file:
        return file.read()


def records_of(path):
    corpus = read_corpus([str(path)])
    assert corpus.quarantined == 0
    return list(corpus.records(corpus.table))


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_copied_byte_by_byte(tmp_path, lines, kind):
    path = tmp_path / "out" / f"kept{kind}"
    done = filter_corpus(read_corpus([lines]), GOOD, path)
    aside = tmp_path / "out" / f"kept.dropped{kind}"
    assert (done.read, done.kept, done.problems, done.path, done.dropped_path) == (4, 2, 2, path, aside)
    assert done.reasons == {"no_reward": 1, "reward_below_min": 1}
    assert done.lines() == [
        f"kept 2 of 4 rollouts, of 2 problems: {path}",
        f"dropped 2 (no_reward 1, reward_below_min 1): {aside}",
    ]
    assert records_of(path) == [RECORDS[0], RECORDS[2]]
    assert records_of(aside) == [
        RECORDS[1][:-1] + b',"drop_reason":"reward_below_min"}',
        RECORDS[3][:-1] + b',"drop_reason":"no_reward"}',
    ]
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, aside.name])
    if ".jsonl" in kind:
        assert unpacked(path) == RECORDS[0] + b"\n" + RECORDS[2] + b"\n"


@pytest.mark.parametrize("kind", [".json", ".json.gz", ".json.zst"])
def test_documents_have_the_seeds_keys(tmp_path, kind):
    value = {
        "metadata": {"model_name": "org/m", "samples_per_task": 9, "generated": "2025", "nested": {"a": [1]}},
        "examples": [json.loads(record) for record in (RECORDS[0], RECORDS[1], RECORDS[3])],
        "summary": {"total_examples": 99, "of_another": 1},
    }
    (tmp_path / "in.json").write_text(json.dumps(value))
    filter_corpus(read_corpus([str(tmp_path / "in.json")]), GOOD, tmp_path / f"kept{kind}")
    kept = orjson.loads(unpacked(tmp_path / f"kept{kind}"))
    assert list(kept) == ["metadata", "examples", "summary"]
    assert kept["metadata"] == {
        "model_name": "org/m",
        "samples_per_task": 1,
        "generated": "2025",
        "nested": {"a": [1]},
        "total_tasks": 1,
        "total_samples": 1,
        "filters": ["reward at least 0.5"],
    }
    assert kept["summary"] == {
        "total_examples": 1,
        "successful": 1,
        "failed": 0,
        "average_reward": 1.0,
        "total_model_calls": 3,
    }
    dropped = orjson.loads(unpacked(tmp_path / f"kept.dropped{kind}"))
    assert (dropped["metadata"]["total_tasks"], dropped["metadata"]["total_samples"]) == (2, 2)
    assert dropped["summary"] == {
        "total_examples": 2,
        "successful": 0,
        "failed": 2,
        "average_reward": 0.25,
        "total_model_calls": 2,
    }
    assert [row["drop_reason"] for row in dropped["examples"]] == ["reward_below_min", "no_reward"]


def test_nothing_dropped_is_a_file_too(tmp_path, lines):
    everything = filter_corpus(read_corpus([lines]), Filters(), tmp_path / "all.json")
    assert (everything.kept, everything.problems, everything.reasons) == (4, 3, {})
    assert everything.lines()[1] == f"dropped 0 (none): {tmp_path / 'all.dropped.json'}"
    result = json.loads((tmp_path / "all.dropped.json").read_text())
    assert result["examples"] == []
    assert result["metadata"] == {"samples_per_task": 0, "total_tasks": 0, "total_samples": 0}
    assert result["summary"]["average_reward"] == 0.0


def test_nothing_kept_is_an_error_that_leaves_all_files_as_they_are(tmp_path, lines):
    (tmp_path / "out.json").write_text("an earlier one")
    with pytest.raises(InputError, match=r"left as it was: reward_below_min 3, no_reward 1"):
        filter_corpus(read_corpus([lines]), Filters(min_reward=2), tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "an earlier one"
    assert not (tmp_path / "out.dropped.json").exists()


def test_dropped_records_can_be_filtered_again(tmp_path, lines):
    (tmp_path / "first.dropped.jsonl").write_bytes(
        b"\n".join(row[:-1] + b',"drop_reason":"reward_below_min"}' for row in RECORDS)
    )
    again = tmp_path / "second.jsonl"
    done = filter_corpus(read_corpus([str(tmp_path / "first.dropped.jsonl")]), Filters(where="reward < 0.4"), again)
    assert done.kept == 1
    rows = (tmp_path / "second.dropped.jsonl").read_bytes().splitlines()
    assert [orjson.loads(row)["drop_reason"] for row in rows] == ["where"] * 3
    assert all(row.count(b'"drop_reason":"') == 1 for row in rows)
    assert rows[1] == RECORDS[2][:-1] + b',"drop_reason":"where"}'
    assert again.read_bytes().count(b"123456789012345678901234567890") == 1


def test_filtering_the_kept_changes_nothing(tmp_path, lines):
    filter_corpus(read_corpus([lines]), GOOD, tmp_path / "once.json")
    twice = filter_corpus(read_corpus([str(tmp_path / "once.json")]), GOOD, tmp_path / "twice.json")
    assert (twice.read, twice.kept) == (2, 2)
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "twice.json").read_bytes()


def test_several_inputs_of_several_kinds_in_their_order(tmp_path, lines):
    rows = [rollout("p9", 0, 1.0), rollout("p9", 1, 0.0)]
    pl.DataFrame(
        {
            "instance_id": ["q"] * 2,
            "reward": [0.75, 0.0],
            "messages": [orjson.dumps(row["messages"]).decode() for row in rows],
        }
    ).write_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in rows)))
    corpus = read_corpus([str(tmp_path / "c.jsonl.gz"), lines, str(tmp_path / "b.parquet")])
    done = filter_corpus(corpus, GOOD, tmp_path / "kept.jsonl")
    assert (done.read, done.kept) == (8, 4)
    kept = (tmp_path / "kept.jsonl").read_bytes().splitlines()
    assert kept[:3] == [orjson.dumps(rows[0]), RECORDS[0], RECORDS[2]]
    assert orjson.loads(kept[3])["messages"] == rows[0]["messages"]


def test_records_over_several_lines_stay_one_row(tmp_path):
    rows = [rollout("p0", 0, 1.0), rollout("p0", 1, 0.0)]
    (tmp_path / "in.json").write_text(json.dumps({"metadata": {}, "examples": rows}, indent=4))
    done = filter_corpus(read_corpus([str(tmp_path / "in.json")]), GOOD, tmp_path / "kept.jsonl")
    assert done.kept == 1
    assert lines_of(tmp_path / "kept.jsonl") == [rows[0]]
    assert lines_of(tmp_path / "kept.dropped.jsonl") == [{**rows[1], "drop_reason": "reward_below_min"}]


def test_positions_of_dropped_rollouts(tmp_path, lines):
    done = filter_corpus(read_corpus([lines]), GOOD, tmp_path / "kept.json.gz", "places")
    assert done.dropped_path == tmp_path / "kept.dropped.jsonl"
    first, second = lines_of(done.dropped_path)
    assert (first["source"], first["row"], first["instance_id"]) == (lines, 2, "p0")
    assert (first["sample_id"], first["reward"], first["drop_reason"]) == (1, 0.25, "reward_below_min")
    assert (second["row"], second["error_type"], second["drop_reason"]) == (4, "timeout", "no_reward")


@pytest.mark.parametrize(
    ("name", "records", "positions"),
    [
        ("rows.json", "rows.dropped.json", "rows.dropped.jsonl"),
        ("a.b.jsonl.zst", "a.b.dropped.jsonl.zst", "a.b.dropped.jsonl"),
        ("x.json.gz", "x.dropped.json.gz", "x.dropped.jsonl"),
    ],
)
def test_paths_of_dropped_rollouts(tmp_path, name, records, positions):
    assert dropped_path(tmp_path / name) == tmp_path / records
    assert positions_path(tmp_path / name) == tmp_path / positions


@pytest.mark.parametrize("name", ["rows.parquet", "rows", ".json", "rows.jsonl.bz2"])
def test_other_names_are_refused_and_nothing_is_written(tmp_path, lines, name):
    with pytest.raises(InputError, match="cannot write rows to"):
        filter_corpus(read_corpus([lines]), GOOD, tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def run(tmp_path):
    """A run directory: two problems, two rollouts each, and an image."""
    with opened(tmp_path / "run", rows=2) as run:
        append(run.journal, "p0", 0)
        append(run.journal, "p0", 1, error=0.5)
        append(run.journal, "p1", 1, state="failed:timeout")
        append(run.journal, "p1", 1)
        append(run.journal, "p1", 0, state="unparseable")
    (tmp_path / "run" / "images").mkdir()
    (tmp_path / "run" / "images" / "aa.png").write_bytes(b"picture")
    return tmp_path / "run"


def test_a_run_is_filtered_with_its_images(tmp_path, run):
    corpus = read_corpus([str(run)])
    done = filter_corpus(corpus, Filters(successful_only=True), tmp_path / "out" / "kept.json")
    assert (done.read, done.kept, done.reasons) == (4, 2, {"not_successful": 2})
    kept = json.loads((tmp_path / "out" / "kept.json").read_text())
    assert [(row["instance_id"], row["sample_id"]) for row in kept["examples"]] == [("p0", 0), ("p1", 1)]
    assert kept["metadata"]["model_name"] == "run"
    assert kept["metadata"]["identity"] == corpus.metadata["identity"]
    image = tmp_path / "out" / "images" / "aa.png"
    assert image.read_bytes() == b"picture"
    assert image.stat().st_ino == (run / "images" / "aa.png").stat().st_ino, "linked where it can be"
    filter_corpus(corpus, Filters(), tmp_path / "out" / "again.json")
    filter_corpus(corpus, Filters(), run / "inside.jsonl")
    assert image.read_bytes() == b"picture"


def test_images_are_copied_where_they_cannot_be_linked(tmp_path, run, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    filter_corpus(read_corpus([str(run)]), Filters(), tmp_path / "out" / "kept.jsonl")
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["aa.png"]
    assert (tmp_path / "out" / "images" / "aa.png").read_bytes() == b"picture"


def test_partial_image_is_removed(tmp_path, run, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(apply_filters, "atomic_write_bytes", refuse)
    with pytest.raises(OSError, match="full"):
        filter_corpus(read_corpus([str(run)]), Filters(), tmp_path / "out" / "kept.jsonl")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["images"]


def test_failing_call_keeps_earlier_output(tmp_path, lines, monkeypatch):
    path = tmp_path / "out" / "kept.jsonl"
    filter_corpus(read_corpus([lines]), GOOD, path)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(apply_filters, "write_seed_format", refuse)
    with pytest.raises(OSError, match="full"):
        filter_corpus(read_corpus([lines]), Filters(), path)
    assert path.read_bytes() == before


FILL = """
import resource, signal, sys
from pathlib import Path
from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.curation.apply_filters import filter_corpus
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft

corpus = read_corpus([sys.argv[1]])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    filter_corpus(corpus, Filters(min_reward=0.5), Path(sys.argv[2]))
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("large", [0.0, 1.0], ids=["the dropped are too many", "the kept are too many"])
@pytest.mark.parametrize("kind", [".json", ".jsonl", ".jsonl.gz", ".json.zst"])
def test_full_disk_leaves_no_files(tmp_path, kind, large):
    small = 1.0 - large
    rows = [rollout("p0", 0, small), *(rollout("p0", n, large, answer=os.urandom(1000).hex()) for n in range(1, 200))]
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    path = tmp_path / "out" / f"kept{kind}"
    argv = [sys.executable, "-c", FILL, tmp_path / "in.jsonl", path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == f"{errno.EFBIG}\n", done.stderr
    assert list(path.parent.iterdir()) == []


def test_card_lists_earlier_filters(tmp_path, lines):
    filter_corpus(read_corpus([lines]), GOOD, tmp_path / "once.json")
    filter_corpus(read_corpus([str(tmp_path / "once.json")]), Filters(at_most_k=1), tmp_path / "twice.json")
    assert json.loads((tmp_path / "twice.json").read_text())["metadata"]["filters"] == [
        "reward at least 0.5",
        "at most 1 of a problem",
    ]
    exporter, filters = sft_exporter(tmp_path / "sft.jsonl", Sft(), Filters(), allow_empty=True)
    export_corpus(read_corpus([str(tmp_path / "twice.json")]), filters, exporter)
    card = (tmp_path / "README.md").read_text()
    assert (
        card.index("- reward at least 0.5") < card.index("- at most 1 of a problem") < card.index("- without an error")
    )


def test_kept_blank_answers_are_noted(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [rollout(sample=number, answer=text) for number, text in enumerate([" ", "\u3000", "a"])]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    kept = filter_corpus(read_corpus([str(path)]), Filters(), tmp_path / "out.jsonl")
    assert "in 2 of them the model wrote nothing: --drop_empty leaves them out" in kept.lines()
