"""The displayed parts of a record."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.reports.viewing.blocks import Block
from rollmill.reports.viewing.trajectory import Findings, ShownMessage, Trajectory, is_denied, read_trajectory, state

REAL = Path(__file__).parents[4] / "shared/data/evaluated_rollouts.json"


def read(**fields):
    return read_trajectory(json.dumps(fields).encode())


def test_every_part_of_a_record():
    answer = {"success": False, "reason": "Build failed", "phase": "build", "container_id": "c", "test_path": "/x"}
    trajectory = read(
        instance_id="p",
        problem_statement="Do it.",
        messages=[{"role": "user", "content": "hi", "name": "ann"}, {"role": "exit", "content": "", "extra": {"a": 1}}],
        git_diff="\n-a\n+b\n",
        evaluation_info={"response": {"raw": "{}", "json": answer}, "meta": {"success": True, "error": "Make\nfailed"}},
        verdict={"verifier": "numeric@1", "answer": "3", "error": 0.5, "reason": None},
        error={"type": "timeout", "message": "late"},
    )
    assert trajectory == Trajectory(
        turns=[ShownMessage("user", "ann", [Block("text", "hi")]), ShownMessage("exit", "", [])],
        problem_statement="Do it.",
        git_diff="-a\n+b",
        evaluation=Findings(
            [("success", "false"), ("phase", "build"), ("reason", "Build failed")], [("error", "Make\nfailed")]
        ),
        verdict=Findings([("error", "0.5"), ("answer", "3"), ("verifier", "numeric@1")]),
        error="timeout: late",
    )
    assert [turn.bookkeeping for turn in trajectory.turns] == [False, True]


@pytest.mark.parametrize("record", [{}, {"messages": None}, {"messages": []}, {"completion": None, "prompt": None}])
def test_record_without_messages_is_read(record):
    assert read(**record) == Trajectory()


def test_a_completion_is_the_last_message():
    turns = read(prompt="q", completion="a").turns
    assert turns == [
        ShownMessage("user", "", [Block("text", "q")]),
        ShownMessage("assistant", "", [Block("text", "a")]),
    ]


@pytest.mark.parametrize(
    ("info", "findings"),
    [
        (None, Findings()),
        ({}, Findings()),
        ("it broke", Findings([("message", "it broke")])),
        ({"meta": {"success": False, "error": "e"}}, Findings([("success", "false"), ("error", "e")])),
        ({"response": "no JSON"}, Findings([("message", "no JSON")])),
        ({"score": 2, "meta": {"score": 3}}, Findings([("score", "2")])),
    ],
)
def test_evaluations_of_every_kind(info, findings):
    assert read(evaluation_info=info).evaluation == findings


def test_malformed_messages_are_shown_as_far_as_possible():
    trajectory = read(messages=[{"role": "user", "content": "hi"}, {"type": "function_call"}, "x"], completion="end")
    assert [turn.role for turn in trajectory.turns] == ["user", "no role", "no role", "assistant"]
    assert trajectory.turns[1].blocks == [Block("output", '{\n  "type": "function_call"\n}')]
    assert trajectory.unreadable.startswith("The record is not of the usual shape: ")


def test_nan_and_lone_surrogates_are_read():
    odd = b'{"messages": [{"role": "user", "content": "\\ud800 hi"}], "reward": NaN, "error": "?"}'
    trajectory = read_trajectory(odd)
    assert trajectory.turns == [ShownMessage("user", "", [Block("text", "? hi")])]
    assert trajectory.error == "?"
    usual = read_trajectory(b'{"messages": [{"role": "user", "content": "hi"}], "reward": NaN}')
    assert usual == Trajectory(turns=[ShownMessage("user", "", [Block("text", "hi")])])


def test_invalid_record_is_reported():
    assert read_trajectory(b"[1]") == Trajectory(unreadable="The record is not a JSON object but a list.")
    assert read_trajectory(b"\x1b{").unreadable.startswith("The record is not valid JSON: ")
    assert read_trajectory(b"\xff").unreadable.startswith("The record is not valid JSON: ")


@given(st.binary(max_size=60))
def test_no_bytes_raise(record):
    assert isinstance(read_trajectory(record), Trajectory)


@pytest.mark.parametrize(
    ("facts", "expected", "denied"),
    [
        ({"status": "failed", "success": None}, "failed", False),
        ({"status": "ok", "success": True, "claimed_success": True}, "success", False),
        ({"status": "ok", "success": False, "claimed_success": True}, "unsuccessful", True),
        ({"status": "unparseable", "success": False, "claimed_success": False}, "unsuccessful", False),
        ({"status": "ok", "success": None}, "unjudged", False),
        ({}, "unjudged", False),
    ],
)
def test_state_of_a_rollout(facts, expected, denied):
    assert (state(facts), is_denied(facts)) == (expected, denied)


@pytest.mark.skipif(not REAL.exists(), reason="the real rollouts are not on this machine")
def test_real_rollouts():
    trajectories = [read_trajectory(json.dumps(rollout).encode()) for rollout in json.loads(REAL.read_bytes())]
    assert len(trajectories) == 24
    assert not [trajectory for trajectory in trajectories if trajectory.unreadable or trajectory.turns]
    first = trajectories[0].evaluation.facts
    assert first[:3] == [
        ("success", "false"),
        ("phase", "precheck"),
        ("reason", "Build failed (No changes detected relative to HEAD)"),
    ]
