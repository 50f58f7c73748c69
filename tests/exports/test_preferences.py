"""Export of preference pairs."""

import pytest
from datasets import load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.exports.preferences import export_preferences, pair_up
from rollmill.exports.splitting import Split
from tests.exports.sample_corpus import InMemoryCorpus, lines_of, msg, reasons_of, rollout


def export(folder, records, **options):
    corpus = InMemoryCorpus(records)
    exported = export_preferences(folder / "dpo.jsonl", corpus, corpus.table, **options)
    return exported, lines_of(folder / "dpo.jsonl")


def samples_of(lines):
    keys = ("chosen_sample_id", "rejected_sample_id")
    return [tuple(line["metadata"][key] for key in keys) for line in lines]


def group(*rewards, problem="p0", first=0, **more):
    """Rollouts of one problem, each with an answer of its own."""
    return [
        rollout(problem, number, reward, answer=f"answer {number}", **more)
        for number, reward in enumerate(rewards, start=first)
    ]


def test_one_pair(tmp_path):
    exported, (line,) = export(tmp_path, group(0.0, 1.0), origin={"run": "abc"})
    assert line == {
        "prompt": [msg("system", "s"), msg("user", "q of p0")],
        "chosen": [msg("assistant", "answer 1")],
        "rejected": [msg("assistant", "answer 0")],
        "metadata": {
            "instance_id": "p0",
            "chosen_sample_id": 1,
            "rejected_sample_id": 0,
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
            "margin": 1.0,
            "run": "abc",
        },
    }
    assert (exported.rows, exported.kept, exported.dropped.height) == ({"train": 1}, 2, 0)


def test_best_with_worst_second_best_with_second_worst(tmp_path):
    _, lines = export(tmp_path, group(0.1, 0.9, 0.3, 0.7, 0.2, 0.8))
    assert samples_of(lines) == [(1, 0), (5, 4), (3, 2)]


def test_drop_reasons_of_pairs(tmp_path):
    exported, lines = export(tmp_path, group(0.0, 1.0, 0.0, 1.0, 0.0), max_pairs=1)
    assert samples_of(lines) == [(1, 0)]
    assert reasons_of(exported) == {2: "over_limit", 3: "over_limit", 4: "no_contrast"}


def test_margin_tolerates_rounding(tmp_path):
    assert samples_of(export(tmp_path, group(0.4, 0.7), min_margin=0.3)[1]) == [(1, 0)]
    assert export(tmp_path, group(0.4, 0.7), min_margin=0.31)[1] == []
    assert export(tmp_path, group(1.0, 1.0))[1] == []


def test_success_decides_who_may_be_chosen_or_rejected(tmp_path):
    both_right = group(0.6, 1.0)
    both_wrong = group(0.0, 0.4, problem="p1")
    unknown = group(0.0, 1.0, problem="p2", success=None)
    exported, lines = export(tmp_path, [*both_right, *both_wrong, *unknown])
    assert [line["metadata"]["instance_id"] for line in lines] == ["p2"]
    assert set(reasons_of(exported).values()) == {"no_contrast"}


def test_unjudged_rollouts_are_in_no_pair(tmp_path):
    records = [
        *group(0.0, 1.0),
        rollout("p0", 2, 0.0, answer=" "),
        rollout("p0", 3, None, success=None, answer="x"),
        rollout("p0", 4, -9.0, answer="y", error={"type": "timeout", "message": "m"}),
        {"instance_id": "p0", "sample_id": 5, "reward": 0.0, "success": False},
        {"instance_id": "p0", "sample_id": 6, "reward": 0.0, "success": False, "messages": [msg("user", "q")]},
    ]
    exported, lines = export(tmp_path, records)
    assert samples_of(lines) == [(1, 0)]
    assert reasons_of(exported) == {
        2: "empty_completion",
        3: "no_reward",
        4: "failed",
        5: "no_messages",
        6: "no_assistant_turn",
    }


def test_equal_completions_are_never_paired(tmp_path):
    records = [
        rollout("p0", 0, 1.0, answer="same"),
        rollout("p0", 1, 0.0, answer="same"),
        rollout("p0", 2, 0.0, answer="other"),
    ]
    exported, lines = export(tmp_path, records)
    assert samples_of(lines) == [(0, 2)]
    assert reasons_of(exported) == {1: "no_contrast"}


def test_prompts_must_have_equal_values(tmp_path):
    other = rollout("p0", 1, 1.0, answer="b")
    other["messages"][1]["content"] = "another question"
    exported, lines = export(tmp_path, [rollout("p0", 0, 0.0), other])
    assert lines == []
    assert reasons_of(exported) == {0: "prompts_differ", 1: "prompts_differ"}
    escaped = (
        b'{"instance_id":"p","sample_id":%d,"reward":%d,"success":%s,"messages":'
        b'[{"role":"user","content":"%s"},{"role":"assistant","content":"%d"}]}'
    )
    pair = [escaped % (0, 0, b"false", b"A", 0), escaped % (1, 1, b"true", b"\\u0041", 1)]
    assert len(export(tmp_path, pair)[1]) == 1


def test_equal_image_paths_of_different_folders_are_different_images(tmp_path):
    shown = [msg("user", [{"type": "image", "image": "images/x.png"}])]
    records = [
        {
            "instance_id": "p",
            "sample_id": n,
            "reward": n,
            "success": bool(n),
            "messages": [*shown, msg("assistant", f"{n}")],
        }
        for n in (0, 1)
    ]
    for roots, pairs in (((tmp_path / "a", tmp_path / "b"), 0), ((tmp_path / "a", tmp_path / "a"), 1)):
        corpus = InMemoryCorpus(records, roots)
        table = corpus.table.with_columns(source=corpus.table["row"])
        exported = export_preferences(tmp_path / "dpo.jsonl", corpus, table)
        assert exported.rows == {"train": pairs}
    assert lines_of(tmp_path / "dpo.jsonl")[0]["images"] == ["a/images/x.png"]


def test_a_refused_rollout_leaves_its_partner_without_contrast(tmp_path):
    bad = rollout("p0", 1, 1.0, answer="b")
    bad["messages"].insert(0, msg("robot", "x"))
    exported, lines = export(tmp_path, [rollout("p0", 0, 0.0), bad])
    assert lines == []
    assert reasons_of(exported) == {0: "no_contrast", 1: "unknown_role"}


def test_conversation_without_a_prompt_makes_no_pair(tmp_path):
    records = [
        {
            "instance_id": "p",
            "sample_id": n,
            "reward": n,
            "success": bool(n),
            "messages": [msg("assistant", f"{n}")],
        }
        for n in (0, 1)
    ]
    assert reasons_of(export(tmp_path, records)[0]) == {0: "no_prompt", 1: "no_prompt"}


def test_split_and_loading(tmp_path):
    records = [item for number in range(6) for item in group(0.0, 1.0, problem=f"p{number}")]
    exported, _ = export(tmp_path, records, split=Split(0.3))
    assert sum(exported.rows.values()) == sum(exported.problems.values()) == 6
    files = {side: str(path) for side, path in exported.files.items()}
    rows = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {side: split.num_rows for side, split in rows.items()} == exported.rows


@pytest.mark.parametrize(("options", "words"), [({"min_margin": -1.0}, "margin"), ({"max_pairs": 0}, "pairs")])
def test_invalid_options_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        export(tmp_path, group(0.0, 1.0), **options)


REWARDS = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0])
ROLLOUTS = st.tuples(st.sampled_from("pq"), REWARDS, st.sampled_from([None, True, False]), st.sampled_from("abcd "))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(ROLLOUTS, max_size=12), st.sampled_from([0.0, 0.5]), st.integers(1, 3))
def test_invariants(tmp_path, built, margin, most):
    records = [
        rollout(problem, number, reward, success=success, answer=answer)
        for number, (problem, reward, success, answer) in enumerate(built)
    ]
    exported, lines = export(tmp_path, records, min_margin=margin, max_pairs=most)
    pairs = samples_of(lines)
    used = [row for pair in pairs for row in pair]
    assert len(used) == len(set(used)) == exported.kept
    assert sorted([*used, *exported.dropped["row"]]) == list(range(len(records)))
    for chosen, rejected in pairs:
        better, worse = records[chosen], records[rejected]
        assert better["instance_id"] == worse["instance_id"]
        assert better["reward"] - worse["reward"] >= max(margin, 0.25)
        assert better["success"] is not False
        assert worse["success"] is not True
        assert better["messages"][-1] != worse["messages"][-1]
    for problem in "pq":
        assert sum(records[chosen]["instance_id"] == problem for chosen, _ in pairs) <= most


def test_pairs_of_no_rows():
    assert pair_up(InMemoryCorpus([]).table, min_margin=0.0, max_pairs=1).paired.height == 0
