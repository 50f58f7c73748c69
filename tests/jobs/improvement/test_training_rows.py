"""Selection of training rows from several data sources."""

import hashlib

import orjson
import pytest

from rollmill.corpus.record import decode_record
from rollmill.errors import InputError
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.improvement.candidate_pool import is_verified
from rollmill.jobs.improvement.training_rows import write_training_rows
from tests.exports.sample_corpus import lines_of
from tests.generation.run_factory import append, opened
from tests.jobs.improvement.recorded_rollouts import existing, recorded, sampled, write_lines

ACCEPTED = Filters(
    drop_errors=["any"], drop_unparseable=True, successful_only=True, drop_empty=True, drop_duplicates=True
)


def make_run(directory, *completions, questions=("question 0", "question 1"), **fields):
    """A run in which the right completions of p0, p1, ... are these; a text or several."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"p{index}", "prompt": question, "answer": "1"} for index, question in enumerate(questions)]
    with opened(directory, rows=rows, num_rollout=8) as run:
        for index, some in enumerate(completions):
            for sample, text in enumerate([some] if isinstance(some, str) else some):
                append(run.journal, f"p{index}", sample, completion=text, **fields)


def chosen(tmp_path, feeds, at_most_k=1, accepted=ACCEPTED):
    result = write_training_rows(feeds, tmp_path / "rows", accepted=accepted, at_most_k=at_most_k)
    rows = lines_of(tmp_path / "rows/sft.jsonl")
    assert result.rows == len(rows) == sum(result.feeds.values())
    return result, rows


def message(rows):
    return [
        (row["metadata"]["instance_id"], row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in rows
    ]


def test_the_same_ids_of_different_feeds_are_different_problems(tmp_path):
    make_run(tmp_path / "rollouts", "a", "b")
    make_run(tmp_path / "reject_sampling_1", "c", "d", questions=("other 0", "other 1"))
    data = write_lines(tmp_path / "data.jsonl", [recorded("p0", "third 0", "e"), recorded("p0", "third 0", "f")])
    feeds = [sampled(tmp_path), sampled(tmp_path, "reject_sampling_1"), existing(data)]
    result, rows = chosen(tmp_path, feeds)
    assert result.feeds == {"rollouts": 2, "reject_sampling_1": 2, "data_2": 1}
    assert result.dropped == {"over_limit": 1}
    assert message(rows) == [
        ("rollouts:p0", "question 0", "a"),
        ("rollouts:p1", "question 1", "b"),
        ("reject_sampling_1:p0", "other 0", "c"),
        ("reject_sampling_1:p1", "other 1", "d"),
        ("data_2:p0", "third 0", "e"),
    ]


def test_a_question_is_one_problem_whichever_feeds_have_it(tmp_path):
    make_run(tmp_path / "rollouts", "a", "b")
    make_run(tmp_path / "reject_sampling_1", "c", "d", questions=("other 0", "Question  0"))
    make_run(tmp_path / "old", ["a", "g"])
    rows = [recorded("x", "question 1", "e"), recorded("y", "question 9", "f")]
    feeds = [
        sampled(tmp_path),
        sampled(tmp_path, "reject_sampling_1"),
        existing(write_lines(tmp_path / "data.jsonl", rows)),
        existing(tmp_path / "old", "data_3"),
    ]
    result, rows = chosen(tmp_path, feeds)
    ids = ["rollouts:p0", "rollouts:p1", "reject_sampling_1:p0", "data_2:y"]
    assert [row["metadata"]["instance_id"] for row in rows] == ids
    assert result.dropped == {"over_limit": 3, "duplicate_completion": 1}
    assert result.feeds == {"rollouts": 2, "reject_sampling_1": 1, "data_2": 1, "data_3": 0}
    result, rows = chosen(tmp_path, feeds, at_most_k=3)
    assert result.rows == 7


def test_nothing_unverified_is_trained_on(tmp_path):
    make_run(tmp_path / "rollouts", "a")
    evaluation = {"response": {"json": {"success": True}}}
    rows = [
        recorded("claimed", "q0", verdict=None),
        recorded("claimed too", "q1", verdict=None, metadata={"verifier": "numeric@1"}),
        recorded("judged wrong", "q2", verdict={"success": False}, evaluation_info=evaluation),
        recorded("evaluated", "q3", verdict=None, evaluation_info=evaluation),
        recorded("denied", "q4", evaluation_info={"meta": {"success": False}}),
        recorded("judged", "q5"),
        recorded("judged", "q5", "first, and unverified", verdict=None),
        recorded("failed", "q6", success=False),
    ]
    rows[5:7] = reversed(rows[5:7])  # takes no other's place
    result, rows = chosen(tmp_path, [sampled(tmp_path), existing(write_lines(tmp_path / "data.jsonl", rows))])
    assert [row["metadata"]["instance_id"] for row in rows] == ["rollouts:p0", "data_2:evaluated", "data_2:judged"]
    assert result.dropped == {"unverified": 4, "not_successful": 2}
    assert "unverified 4" in result.line()
    aside = lines_of(tmp_path / "rows/chosen.dropped.jsonl")
    assert [(row["drop_reason"], row["row"], row["instance_id"]) for row in aside] == [
        ("unverified", 1, "claimed"),
        ("unverified", 2, "claimed too"),
        ("unverified", 3, "judged wrong"),
        ("not_successful", 5, "denied"),
        ("unverified", 6, "judged"),
        ("not_successful", 8, "failed"),
    ]
    assert "- verified" in (tmp_path / "rows/README.md").read_text()


def test_a_run_s_own_rollout_needs_a_verdict(tmp_path):
    make_run(tmp_path / "rollouts", "a", "b", verdict=None)
    result, rows = chosen(tmp_path, [sampled(tmp_path)])
    assert (rows, result.dropped) == ([], {"unverified": 2})


@pytest.mark.parametrize(
    ("fields", "verified"),
    [
        ({}, False),
        ({"verdict": None}, False),
        ({"verdict": "yes"}, False),
        ({"verdict": {"success": True}}, True),
        ({"verdict": {"success": "true"}}, False),
        ({"verdict": {"status": "ok"}, "evaluation_info": {"success": True}}, True),
        ({"evaluation_info": {"success": True}}, True),
        ({"evaluation_info": {"meta": {"success": True}, "response": None}}, True),
        ({"evaluation_info": {"response": {"json": {"success": True}}}}, True),
        ({"evaluation_info": {"response": {"json": [1]}, "meta": 3, "success": 1}}, False),
        ({"evaluation_info": {}}, False),
        ({"evaluation_info": "passed"}, False),
    ],
)
def test_record_with_a_verdict_is_verified(fields, verified):
    assert is_verified(decode_record(orjson.dumps({"success": True, **fields}))) is verified


def test_rows_use_the_feed_prompt_or_the_recorded_messages(tmp_path):
    recorded_with_example = [
        {"role": "system", "content": "agent"},
        {"role": "user", "content": "example"},
        {"role": "assistant", "content": "<e>"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    make_run(tmp_path / "rollouts", "a", messages=recorded_with_example[:-1])
    make_run(tmp_path / "reject_sampling_1", "b", questions=["other"], messages=recorded_with_example[:-1])
    data = write_lines(tmp_path / "data.jsonl", [recorded("x", "", messages=recorded_with_example)])
    feeds = [
        sampled(tmp_path, system_prompt="be brief"),
        sampled(tmp_path, "reject_sampling_1", prompt_template="Think: {prompt}"),
        existing(data),
    ]
    _, rows = chosen(tmp_path, feeds)
    assert [row["messages"] for row in rows] == [
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "question 0"},
            {"role": "assistant", "content": "a"},
        ],
        [{"role": "user", "content": "Think: other"}, {"role": "assistant", "content": "b"}],
        recorded_with_example,
    ]


def test_the_most_different_rollouts_of_a_problem_are_kept(tmp_path):
    same = "add the tens first and the ones after them to get to the answer {}"
    make_run(tmp_path / "rollouts", [same.format(n) for n in (1, 2, 3)])
    rows = [recorded("x", "question 0", "a table of sums says so and it is never wrong")]
    feeds = [sampled(tmp_path), existing(write_lines(tmp_path / "data.jsonl", rows))]
    result, rows = chosen(tmp_path, feeds, at_most_k=2)
    assert [row["metadata"]["instance_id"] for row in rows] == ["rollouts:p0", "data_2:x"]
    before = hashlib.sha256((tmp_path / "rows/sft.jsonl").read_bytes()).hexdigest()
    assert chosen(tmp_path, feeds, at_most_k=2)[0].dropped == result.dropped == {"over_limit": 2}
    assert hashlib.sha256((tmp_path / "rows/sft.jsonl").read_bytes()).hexdigest() == before
    near = ACCEPTED.model_copy(update={"near_duplicates": 0.5})
    assert chosen(tmp_path, feeds, at_most_k=3, accepted=near)[0].dropped == {"near_duplicate": 2}


def test_data_given_in_two_feeds_is_refused(tmp_path):
    data = write_lines(tmp_path / "data.jsonl", [recorded("x", "q")])
    with pytest.raises(InputError, match="is given twice"):
        chosen(tmp_path, [existing(data), existing(data, "data_3")])


def test_rows_that_make_no_training_row_are_not_counted(tmp_path):
    rows = [recorded("x", "q"), recorded("y", "q", messages=[{"role": "narrator", "content": "n"}])]
    result, _ = chosen(tmp_path, [existing(write_lines(tmp_path / "data.jsonl", rows))])
    assert (result.feeds, result.dropped) == ({"data_2": 1}, {"empty_completion": 1})
