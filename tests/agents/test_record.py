import orjson
import pytest

from rollmill.agents.playing import FAILED, AgentRun
from rollmill.agents.record import AgentRollout, make_record
from rollmill.corpus.corpus import read_corpus
from rollmill.files.rows import dump_line
from rollmill.generation.tally import RolloutOutcome
from rollmill.grading.evaluation import Evaluation, GitPrecheck, SpeedupDetails, TimedPair
from rollmill.records import Failure, Usage
from rollmill.reports.viewing.trajectory import read_trajectory
from tests.agents.scripted_agents import PROBLEM
from tests.corpus.sample_records import make_run

MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "make it fast"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "bash", "arguments": "{"}}],
        "extra": {"finish_reason": "tool_calls"},
    },
    {"role": "tool", "tool_call_id": "a", "content": "no JSON", "extra": {"interrupt_type": "FormatError"}},
    {"role": "assistant", "content": "done"},
]
DETAILS = SpeedupDetails(
    average_speedup=1.8, min_speedup=1.5, max_speedup=2.0, low=1.6, high=1.9, total_comparisons=1,
    comparisons=[TimedPair(seed=1, before_s=0.1, after_s=0.0, speedup=float("inf"))],
)  # fmt: skip
FASTER = Evaluation(
    instance_id="p", success=True, reward=2.0, speedup=1.8, speedup_details=DETAILS,
    git_precheck=GitPrecheck(is_git=True, ok=True, changed_files=["a.py"], raw_diff="--- a/a.py\n"),
)  # fmt: skip
SLOWER = Evaluation(instance_id="p", success=False, reward=-0.2, speedup=0.9, reason="slower", phase="benchmark")
UNGRADED = Evaluation(
    instance_id="p", success=None, reward=None, error="refused", error_type="connection", phase="test"
)


def played(status="Submitted", **update):
    facts = {
        "messages": MESSAGES, "exit_status": status, "submission": "my patch", "error": None, "model_calls": 5,
        "steps": 4, "usage": Usage(prompt_tokens=9, completion_tokens=2), "finish_reason": "stop", "seconds": 1.23456,
    }  # fmt: skip
    return AgentRun(**facts | update)


def record(done, evaluation, *, sample_id=0, **more):
    return make_record(
        PROBLEM, done, evaluation, sample_id=sample_id, seed=3, metadata={"model": "m", "attempt": 0}, **more
    )  # fmt: skip


def test_record_of_a_graded_attempt():
    row = record(played(), FASTER, sample_id=2)
    assert row.model_dump() == {
        "schema_version": 1,
        "instance_id": "p",
        "sample_id": 2,
        "seed": 3,
        "messages": MESSAGES,
        "completion": None,
        "reward": 2.0,
        "success": True,
        "verdict": {
            "verifier": "performance@1",
            "status": "ok",
            "answer": None,
            "error": None,
            "reason": None,
            "reward": 2.0,
            "success": True,
        },
        "error": None,
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
        "latency_s": 1.2346,
        "finish_reason": "stop",
        "model_calls": 5,
        "metadata": {"model": "m", "attempt": 0, "steps": 4, "submission": "my patch"},
        "problem_statement": "make it fast",
        "git_diff": "--- a/a.py\n",
        "exit_status": "Submitted",
        "speedup": 1.8,
        "evaluation_info": FASTER.model_dump(mode="json"),
    }


def test_a_row_is_one_line_of_valid_json():
    line = dump_line(record(played(), FASTER).model_dump())
    assert line.count(b"\n") == 1
    assert orjson.loads(line)["evaluation_info"]["speedup_details"]["comparisons"][0]["speedup"] is None
    assert AgentRollout.model_validate(orjson.loads(line)).evaluation_info["speedup"] == 1.8


def test_failed_exit_status_is_still_graded():
    row = record(played("LimitsExceeded", submission=""), SLOWER)
    assert (row.reward, row.success, row.speedup, row.error) == (-0.2, False, 0.9, None)
    assert (row.exit_status, row.verdict.reason, row.git_diff) == ("LimitsExceeded", "slower", None)
    assert "submission" not in row.metadata


@pytest.mark.parametrize("evaluation", [None, FASTER])
def test_agent_error_has_no_reward(evaluation):
    error = Failure(type="sandbox_gone", message="gone")
    row = record(played(FAILED, error=error), evaluation)
    assert (row.reward, row.success, row.speedup, row.verdict, row.error) == (None, None, None, None, error)


@pytest.mark.parametrize(
    ("evaluation", "type_", "message"),
    [
        (UNGRADED, "connection", "refused"),
        (UNGRADED.model_copy(update={"error_type": None}), "grading", "refused"),
        (UNGRADED.model_copy(update={"reward": 0.0}), "connection", "refused"),
        (FASTER.model_copy(update={"reward": None}), "grading", "the evaluation has neither reward nor error"),
        (FASTER.model_copy(update={"success": None}), "grading", "the evaluation has neither reward nor error"),
    ],
)
def test_failed_grading_has_no_reward(evaluation, type_, message):
    row = record(played(), evaluation)
    assert (row.reward, row.success, row.speedup, row.verdict) == (None, None, None, None)
    assert row.error == Failure(type=type_, message=message)
    assert row.evaluation_info["phase"] == evaluation.phase


def test_given_diff_overrides_the_evaluations():
    assert record(played(), FASTER, git_diff="other").git_diff == "other"


def test_a_rollout_without_evaluation_and_error_is_a_mistake():
    with pytest.raises(ValueError, match="has an evaluation"):
        record(played(), None)


ROWS = [
    record(played(), FASTER),
    record(played("RepeatedFormatError"), SLOWER, sample_id=1),
    record(played(), UNGRADED, sample_id=2),
    record(played(FAILED, error=Failure(type="http_500", message="no")), None, sample_id=3),
]
EVALUATION = {
    "sample_id": [0, 1, 2, 3],
    "reward": [2.0, -0.2, None, None],
    "success": [True, False, None, None],
    "speedup": [1.8, 0.9, None, None],
    "exit_status": ["Submitted", "RepeatedFormatError", "Submitted", "error"],
    "status": ["ok", "ok", "failed", "failed"],
    "error_type": [None, None, "connection", "http_500"],
    "model_calls": [5, 5, 5, 5],
    "turns": [2, 2, 2, 2],
    "prompt_tokens": [9, 9, 9, 9],
}


@pytest.mark.parametrize("kind", ["run", "document", "lines"])
def test_the_corpus_reads_the_rows(tmp_path, kind):
    rows = [row.model_dump() for row in ROWS]
    if kind == "run":
        make_run(tmp_path / "run", b"".join(map(dump_line, rows)), problems=("p",))
        path = tmp_path / "run"
    else:
        path = tmp_path / "rows.json"
        document = orjson.dumps({"metadata": {"model_name": "m"}, "examples": rows, "summary": {}})
        path.write_bytes(document if kind == "document" else b"".join(map(dump_line, rows)))
    corpus = read_corpus([str(path)])
    assert (corpus.quarantined, corpus.repaired) == (0, 0)
    assert {name: corpus.table[name].to_list() for name in EVALUATION} == EVALUATION
    first = next(corpus.records(corpus.table))
    shown = read_trajectory(first)
    assert [turn.role for turn in shown.turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert (shown.git_diff, shown.problem_statement, shown.unreadable) == ("--- a/a.py", "make it fast", "")


def test_journal_counts_attempts_by_status():
    counted = [RolloutOutcome.of_row(orjson.loads(dump_line(row.model_dump()))) for row in ROWS]
    assert [(item.status, item.success, item.error_type) for item in counted] == [
        ("ok", True, None),
        ("ok", False, None),
        ("failed", False, "connection"),
        ("failed", False, "http_500"),
    ]
    for item in counted:
        item.check()
