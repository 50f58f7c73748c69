import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.curation.sft_export import ExportCounts, export_sft
from rollmill.records import Problem, Rollout, RolloutError, Verdict

PROBLEM = Problem(instance_id="p0", prompt="q", answer="3")


def rollout(sample_id, state, completion="c", messages=None):
    """`state` is an error (accepted up to 0.1), "unparseable" or "failed"."""
    verdict = failure = None
    if state == "failed":
        failure = RolloutError(type="timeout", message="m")
    elif state == "unparseable":
        verdict = Verdict(verifier="numeric@1", status="unparseable", reward=0.0, success=False)
    else:
        good = state <= 0.1
        verdict = Verdict(verifier="numeric@1", status="ok", error=state, reward=float(good), success=good)
    return Rollout(
        instance_id="p0",
        sample_id=sample_id,
        seed=7,
        messages=messages or [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        completion=completion,
        reward=verdict.reward if verdict else None,
        success=verdict.success if verdict else None,
        verdict=verdict,
        error=failure,
    )


ROLLOUTS = [
    rollout(0, 0.1, "a"),
    rollout(1, 0.0, "b"),
    None,
    rollout(3, 0.05, "c"),
    rollout(4, 0.0, "b"),
    rollout(5, 0.5, "d"),
    rollout(6, "unparseable"),
    rollout(7, "failed", None),
    rollout(8, 0.0, " \n"),
]
OTHER = {"duplicate_completion": 1, "not_accepted": 1, "unparseable": 1, "failed": 1, "empty_completion": 1}


def export(path, groups, **options):
    counts = export_sft(path, groups, model="m", run={"run": "abc"}, **options)
    return counts, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "kept", "dropped"),
    [
        ({}, [0, 1, 3], {}),
        ({"at_most": 2}, [1, 3], {"over_limit": 1}),
        ({"keep": "best"}, [1], {"not_best": 2}),
        ({"at_most": 9}, [0, 1, 3], {}),
    ],
)
def test_what_is_kept_and_why_the_rest_is_not(tmp_path, options, kept, dropped):
    counts, rows = export(tmp_path / "sft.jsonl", [(PROBLEM, ROLLOUTS)], **options)
    assert [row["metadata"]["sample_id"] for row in rows] == kept
    assert counts.model_dump() == {"read": 8, "kept": len(kept), "dropped": {**OTHER, **dropped}, "problems": 1}


def test_a_row(tmp_path):
    _, (row,) = export(tmp_path / "sft.jsonl", [(PROBLEM, [rollout(0, 0.05, "the answer")])])
    assert row == {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "the answer"},
        ],
        "metadata": {
            "instance_id": "p0",
            "sample_id": 0,
            "seed": 7,
            "reward": 1.0,
            "error": 0.05,
            "verifier": "numeric@1",
            "model": "m",
            "run": "abc",
        },
    }


def test_images_are_listed_in_order(tmp_path):
    parts = [
        {"type": "image", "image": "/b.png", "media_type": "image/png"},
        {"type": "text", "text": "and"},
        {"type": "image", "image": "/a.png", "media_type": "image/png"},
    ]
    messages = [{"role": "user", "content": parts}]
    _, (row,) = export(tmp_path / "sft.jsonl", [(PROBLEM, [rollout(0, 0.0, messages=messages)])])
    assert row["images"] == ["/b.png", "/a.png"]
    assert row["messages"][0]["content"] == parts


def test_nothing_accepted_is_an_empty_file(tmp_path):
    counts, rows = export(tmp_path / "sft.jsonl", [(PROBLEM, [rollout(0, 1.0)])])
    assert (rows, counts.kept, counts.problems) == ([], 0, 0)


def test_equal_completions_of_two_problems_are_no_duplicates(tmp_path):
    counts, _ = export(tmp_path / "sft.jsonl", [(PROBLEM, [rollout(0, 0.0)]), (PROBLEM, [rollout(0, 0.0)])])
    assert (counts.kept, counts.problems) == (2, 2)


def test_nothing_appears_where_the_input_breaks(tmp_path):
    def groups():
        yield PROBLEM, ROLLOUTS
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        export_sft(tmp_path / "sft.jsonl", groups(), model="m", run={})
    assert list(tmp_path.iterdir()) == []


def test_counts_that_do_not_add_up_are_a_bug():
    with pytest.raises(RuntimeError, match="bug in rollmill"):
        ExportCounts(read=3, kept=1, dropped={"failed": 1}, problems=1)


states = st.one_of(st.sampled_from(["unparseable", "failed"]), st.sampled_from([0.0, 0.05, 0.1, 1.0]))
groups_of_rollouts = st.lists(st.lists(st.tuples(states, st.sampled_from(["a", "b", "", "é\n\u2028"])), max_size=6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(groups_of_rollouts, st.sampled_from(["all", "best"]), st.one_of(st.none(), st.integers(0, 3)))
def test_kept_and_dropped_are_what_was_read(tmp_path, made, keep, at_most):
    groups = [(PROBLEM, [rollout(i, *one) for i, one in enumerate(group)]) for group in made]
    path = tmp_path / "sft.jsonl"
    counts = export_sft(path, groups, model="m", run={}, keep=keep, at_most=at_most)
    lines = path.read_bytes().split(b"\n")[:-1]
    assert counts.read == sum(map(len, made)) == counts.kept + sum(counts.dropped.values())
    assert len(lines) == counts.kept
    assert all(json.loads(line)["messages"][-1]["role"] == "assistant" for line in lines)
