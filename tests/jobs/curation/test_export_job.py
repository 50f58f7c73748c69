"""Exports of real files and runs: rows, dropped rollouts with their reasons, and the card."""

import json
from pathlib import Path

import orjson
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.jobs.curation.export_job import export_corpus
from rollmill.jobs.curation.exporters import preference_exporter, sft_exporter, trajectory_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import PairOptions, Sft, Splitting
from tests.exports.sample_corpus import lines_of, rollout
from tests.generation.run_factory import append, opened

FAILED = {"instance_id": "p0", "sample_id": 3, "reward": 1.0, "success": True, "error": {"type": "timeout"}}
ROWS = [
    rollout("p0", 0, 1.0, answer="right"),
    rollout("p0", 1, 0.0, answer="wrong"),
    rollout("p0", 2, 0.25, answer=" \n"),
    {**FAILED, "messages": rollout("p0")["messages"]},
    rollout("p1", 0, 0.75, answer="right"),
    rollout("p1", 1, 0.75, answer="right"),
]


@pytest.fixture
def document(tmp_path):
    """A file as the seeds' scripts write it; its metadata is another's."""
    path = tmp_path / "raw.json"
    path.write_text(json.dumps({"metadata": {"model_name": "org/m", "x": 1}, "examples": ROWS, "summary": {}}))
    return str(path)


def sft(path, filters=None, **how):
    return sft_exporter(path, Sft(**how), filters or Filters())


def export(source, path, filters=None, **how):
    exporter, filters = sft(path, filters, **how)
    return export_corpus(read_corpus([source]), filters, exporter)


def left_out(outcome):
    return [(row["row"], row["drop_reason"]) for row in lines_of(outcome.dropped_path)]


def counts_of(card):
    """What the card's table of counts says."""
    lines = card.read_text().split("### Counts")[1].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]
    return {name.replace("\\", ""): int(count) for name, count in cells}


def test_conversations_of_a_document(tmp_path, document):
    path = tmp_path / "out" / "sft.jsonl"
    done = export(document, path, Filters(drop_duplicates=True))
    assert (done.read, done.kept) == (6, 3)
    assert done.reasons == {"duplicate_completion": 1, "empty_completion": 1, "failed": 1}
    assert left_out(done) == [(3, "empty_completion"), (4, "failed"), (6, "duplicate_completion")]
    rows = lines_of(path)
    assert [row["messages"][-1]["content"] for row in rows] == ["right", "wrong", "right"]
    assert rows[0] == {
        "messages": ROWS[0]["messages"],
        "metadata": {"instance_id": "p0", "sample_id": 0, "reward": 1.0, "success": True, "model": "org/m"},
    }
    assert done.lines() == [
        "used 3 of 6 rollouts",
        f"train: 3 rows of 2 problems: {path}",
        f"dropped 3 (duplicate_completion 1, empty_completion 1, failed 1): {tmp_path / 'out' / 'sft.dropped.jsonl'}",
        f"card: {tmp_path / 'out' / 'README.md'}",
    ]
    assert sorted(file.name for file in path.parent.iterdir()) == ["README.md", "sft.dropped.jsonl", "sft.jsonl"]


def test_card_has_sources_filters_and_counts(tmp_path, document):
    done = export(document, tmp_path / "out" / "sft.jsonl", Filters(min_reward=0.5, drop_duplicates=True))
    card = done.card.read_text()
    assert f"source: {document}".replace("_", "\\_") in card
    assert "model: org/m" in card
    assert (
        "- without an error\n- not marked against training\n- not cut off at the limit on tokens\n"
        "- reward at least 0.5\n- no duplicates within a problem\n"
    ) in card
    assert counts_of(done.card) == {
        "read": 6,
        "filtered: reward_below_min": 2,
        "filtered: duplicate_completion": 1,
        "filtered: failed": 1,
        "kept": 2,
        "quarantined (rows that could not be read, not counted above)": 0,
    }


def test_prompts_and_completions(tmp_path, document):
    done = export(document, tmp_path / "sft.jsonl", Filters(min_reward=1.0), format="prompt_completion")
    [row] = lines_of(tmp_path / "sft.jsonl")
    assert (row["prompt"], row["completion"]) == (ROWS[0]["messages"][:2], ROWS[0]["messages"][2:])
    assert done.exported.form == "prompt_completion"


def test_dropped_rows_have_file_and_row(tmp_path, document):
    (tmp_path / "more.jsonl").write_bytes(orjson.dumps(FAILED) + b"\n{\n" + orjson.dumps(FAILED) + b"\n")
    corpus = read_corpus([document, str(tmp_path / "more.jsonl")])
    exporter, filters = sft(tmp_path / "out" / "sft.jsonl")
    done = export_corpus(corpus, filters, exporter)
    indexes = [(Path(row["source"]).name, row["row"], row["drop_reason"]) for row in lines_of(done.dropped_path)]
    assert indexes == [
        ("raw.json", 3, "empty_completion"),
        ("raw.json", 4, "failed"),
        ("more.jsonl", 1, "failed"),
        ("more.jsonl", 3, "failed"),
    ]
    assert done.read == 8 == done.kept + len(indexes)
    assert counts_of(done.card)["quarantined (rows that could not be read, not counted above)"] == 1


def test_failed_rollouts_are_never_exported(tmp_path, document):
    only = Filters(where="sample_id = 3", drop_errors=["http_500"])
    for exporter in (
        sft(tmp_path / "a.jsonl")[0],
        trajectory_exporter(tmp_path / "b.json"),
        preference_exporter(tmp_path / "c.jsonl", PairOptions(), Splitting()),
    ):
        with pytest.raises(InputError, match="no rollout can be written to"):
            export_corpus(read_corpus([document]), only, exporter)


def test_trajectories_of_a_document(tmp_path, document):
    done = export_corpus(read_corpus([document]), Filters(), trajectory_exporter(tmp_path / "t.json"))
    assert (done.kept, done.reasons) == (5, {"failed": 1})
    assert left_out(done) == [(4, "failed")]
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["metadata"] == {"model": "org/m"}
    assert [row["trajectory"] for row in written["trajectories"]] == [
        row["messages"] for row in ROWS if row is not ROWS[3]
    ]


def test_preferences_of_a_document(tmp_path, document):
    exporter = preference_exporter(tmp_path / "pairs.jsonl", PairOptions(min_margin=0.5), Splitting())
    done = export_corpus(read_corpus([document]), Filters(), exporter)
    [pair] = lines_of(tmp_path / "pairs.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("right", "wrong")
    assert pair["metadata"] == {
        "instance_id": "p0",
        "chosen_sample_id": 0,
        "rejected_sample_id": 1,
        "chosen_reward": 1.0,
        "rejected_reward": 0.0,
        "margin": 1.0,
        "model": "org/m",
    }
    assert (done.read, done.kept) == (6, 2)
    assert left_out(done) == [(3, "empty_completion"), (4, "failed"), (5, "no_contrast"), (6, "no_contrast")]
    assert "train: 1 row of 1 problem" in done.lines()[1]


def test_the_split_is_by_problem_and_the_same_again(tmp_path):
    rows = [rollout(f"p{problem}", sample, 1.0) for problem in range(40) for sample in range(3)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    sides = []
    for seed in (0, 0, 1):
        done = export(str(tmp_path / "in.jsonl"), tmp_path / f"{seed}" / "s.jsonl", validation_share=0.25, seed=seed)
        result = {
            side: {row["metadata"]["instance_id"] for row in lines_of(path)}
            for side, path in done.exported.files.items()
        }
        assert done.exported.files["validation"].name == "s.validation.jsonl"
        assert not result["train"] & result["validation"]
        assert len(result["train"] | result["validation"]) == 40
        assert sum(done.exported.rows.values()) == done.kept == 120
        assert {side: len(problems) for side, problems in result.items()} == done.exported.problems
        assert 3 <= len(result["validation"]) <= 20
        sides.append(result)
    assert sides[0] == sides[1] != sides[2]


def test_origin_is_the_callers_where_one_is_given(tmp_path, document):
    exporter, filters = sft(tmp_path / "sft.jsonl", Filters(min_reward=1.0))
    export_corpus(read_corpus([document]), filters, exporter, origin={"model": "other", "recipe": 3})
    [row] = lines_of(tmp_path / "sft.jsonl")
    assert (row["metadata"]["model"], row["metadata"]["recipe"]) == ("other", 3)


def test_inputs_that_disagree_have_no_common_origin(tmp_path, document):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"metadata": {"model_name": "org/n"}, "examples": ROWS[:1]}))
    exporter, filters = sft(tmp_path / "sft.jsonl", Filters(min_reward=1.0))
    export_corpus(read_corpus([document, str(other)]), filters, exporter)
    assert [row["metadata"].get("model") for row in lines_of(tmp_path / "sft.jsonl")] == [None, None]


def test_the_longest_row_is_measured_as_it_is_written(tmp_path, document, monkeypatch):
    """Training rows have no bookkeeping: the filter leaves the limit to the export, which counts the written rows."""
    counted = []

    class Counter:
        def __init__(self, tokenizer):
            assert tokenizer == "org/t"

        def count(self, conversations):
            counted.extend(conversations)
            return [len(turns[-1]["content"]) for turns in conversations]

    monkeypatch.setattr("rollmill.exports.token_counter.TokenCounter", Counter)
    rows = [rollout("p0", 0, 1.0, answer="short"), rollout("p0", 1, 1.0, answer="too long"), rollout("p0", 2, 0.0)]
    rows[0]["messages"].append({"role": "exit", "content": "a very long message of an agent's own"})
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    conditions = Filters(tokenizer="org/t", max_tokens=5, min_reward=0.5)
    done = export(str(tmp_path / "in.jsonl"), tmp_path / "sft.jsonl", conditions)
    assert done.reasons == {"over_token_budget": 1, "reward_below_min": 1}
    assert [turns[-1]["content"] for turns in counted] == ["short", "too long"]


def test_nothing_left_is_an_error_that_leaves_all_files_as_they_are(tmp_path, document):
    (tmp_path / "sft.jsonl").write_text("an earlier one")
    with pytest.raises(InputError, match="which is left as it was"):
        export(document, tmp_path / "sft.jsonl", Filters(min_reward=2))
    assert (tmp_path / "sft.jsonl").read_text() == "an earlier one"
    assert not (tmp_path / "sft.dropped.jsonl").exists()


def test_a_wrong_name_writes_nothing(tmp_path, document):
    with pytest.raises(InputError, match=r"give a path that ends in \.jsonl"):
        export(document, tmp_path / "out" / "sft.json")
    assert not list(tmp_path.glob("out/*"))


@pytest.fixture
def run(tmp_path):
    """A run of two problems in the order p0, p1, its journal in another, one rollout made twice."""
    with opened(tmp_path / "policy", rows=2) as run:
        append(run.journal, "p1", 0)
        append(run.journal, "p1", 1, state="failed:timeout")
        append(run.journal, "p0", 1, error=0.5, completion="no")
        append(run.journal, "p0", 0, completion="yes", metadata={"attempt": 0, "max_tokens": 1})
        append(run.journal, "p1", 1, state="unparseable")
    return tmp_path / "policy"


def test_exported_rows_follow_the_problem_order(tmp_path, run):
    done = export(str(run), tmp_path / "sft.jsonl", Filters(drop_unparseable=True))
    assert (done.read, done.kept, done.reasons) == (4, 3, {"unparseable": 1})
    rows = lines_of(tmp_path / "sft.jsonl")
    assert [(row["metadata"]["instance_id"], row["metadata"]["sample_id"]) for row in rows] == [
        ("p0", 0),
        ("p0", 1),
        ("p1", 0),
    ]
    identity = json.loads((run / "manifest.json").read_text())["identity_key"]
    assert rows[1] == {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no"}],
        "metadata": {
            "instance_id": "p0",
            "sample_id": 1,
            "seed": 1,
            "reward": 0.0,
            "success": False,
            "model_calls": 1,
            "error": 0.5,
            "verifier": "numeric@1",
            "model": "policy",
            "identity": identity,
        },
    }
    [dropped] = lines_of(done.dropped_path)
    assert (dropped["source"], dropped["row"]) == (str(run / "rollouts" / "0001.jsonl"), 5)


def test_pairs_and_trajectories_of_a_run(tmp_path, run):
    pairs = preference_exporter(tmp_path / "pairs.jsonl", PairOptions(), Splitting())
    done = export_corpus(read_corpus([str(run)]), Filters(), pairs)
    assert [row["metadata"]["instance_id"] for row in lines_of(tmp_path / "pairs.jsonl")] == ["p0", "p1"]
    assert (done.read, done.kept, done.reasons) == (4, 4, {})
    done = export_corpus(read_corpus([str(run)]), Filters(), trajectory_exporter(tmp_path / "t.jsonl.gz"))
    assert (done.kept, done.dropped_path) == (4, tmp_path / "t.dropped.jsonl")


def test_images_of_a_run_are_found_from_the_export(tmp_path):
    with opened(tmp_path / "seeing", rows=1) as seeing:
        parts = [{"type": "image", "image": "images/aa.png"}, {"type": "text", "text": "what is it?"}]
        append(seeing.journal, "p0", 0, messages=[{"role": "user", "content": parts}])
    (tmp_path / "seeing" / "images").mkdir()
    (tmp_path / "seeing" / "images" / "aa.png").write_bytes(b"picture")
    export(str(tmp_path / "seeing"), tmp_path / "deep" / "out" / "sft.jsonl")
    [row] = lines_of(tmp_path / "deep" / "out" / "sft.jsonl")
    assert row["images"] == ["../../seeing/images/aa.png"]
    assert (tmp_path / "deep" / "out" / row["images"][0]).read_bytes() == b"picture"


def test_the_error_of_an_empty_export_counts_what_was_filtered_before(tmp_path):
    rows = [{**rollout("p", 0, 1.0), "finish_reason": "length"}, {**rollout("p", 1, 1.0), "train": False}]
    (tmp_path / "raw.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    with pytest.raises(InputError, match=r"left as it was: marked_not_for_training 1, truncated 1$"):
        export(str(tmp_path / "raw.jsonl"), tmp_path / "sft.jsonl")
