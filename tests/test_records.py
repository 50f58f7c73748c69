"""The record types that all packages share."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from rollmill.records import Problem, Rollout, Verdict, is_cut_off

JUDGED = {"verifier": "v@1", "status": "ok", "reward": 1.0, "success": True}


class Row(BaseModel):
    verdict: Verdict | None


@pytest.mark.parametrize("key", ["distance", "error"])
def test_a_verdict_takes_its_distance_by_both_names(key):
    verdict = Verdict.model_validate({**JUDGED, key: 0.5})
    assert verdict.distance == verdict.error == 0.5


def test_files_keep_the_key_error():
    verdict = Verdict(**JUDGED, distance=0.5)
    assert verdict.model_dump()["error"] == 0.5
    assert b'"error":0.5' in Row(verdict=verdict).model_dump_json().encode()
    assert "distance" not in Row(verdict=verdict).model_dump(mode="json")["verdict"]


CUT_OFF = """length LENGTH max_tokens MAX_TOKENS FinishReason.MAX_TOKENS max_output_tokens model_length
model_context_window_exceeded TokenLimitReached token-limit-reached incomplete limit FINISH_REASON_MAX_TOKENS
FINISHED_LENGTH_CAPPED maximum_tokens max_model_len
max_tokens_exceeded length_limit max_context_length ERROR_LIMIT exceeded_max_tokens"""


@pytest.mark.parametrize("reason", CUT_OFF.split())
def test_a_limit_on_tokens_is_known_under_any_servers_name(reason):
    assert is_cut_off(reason)


@pytest.mark.parametrize("reason", ["stop", "end_turn", "eos", "tool_calls", "content_filter", "STOP", "", None, 7, {}])
def test_any_other_end_cuts_nothing_off(reason):
    assert not is_cut_off(reason)


def test_a_rollout_leaves_out_what_was_not_sent():
    row = {
        "instance_id": "a",
        "sample_id": 0,
        "seed": 0,
        "messages": [],
        "completion": "1",
        "reward": None,
        "success": None,
        "verdict": None,
        "error": None,
    }
    assert not {"reasoning_content", "tools", "chat_template_kwargs"} & Rollout.model_validate(row).model_dump().keys()
    thinking = row | {"reasoning_content": "First, ..."}
    assert Rollout.model_validate(thinking).model_dump()["reasoning_content"] == "First, ..."


OLDER = {
    "instance_id": "p", "sample_id": 0, "seed": 0, "completion": None, "reward": None, "success": None,
    "verdict": None, "error": None,
}  # fmt: skip


def test_thoughts_in_journals_of_older_versions():
    single = OLDER | {"messages": [], "metadata": {"reasoning": "hm", "model": "m"}}
    rollout = Rollout.model_validate(single)
    assert (rollout.reasoning_content, rollout.metadata) == ("hm", {"model": "m"})
    turns = [
        {"role": "user", "content": "q", "reasoning": "x"},
        {"role": "assistant", "content": "a", "reasoning": "y"},
    ]
    episode = Rollout.model_validate(OLDER | {"messages": turns})
    assert episode.messages == [turns[0], {"role": "assistant", "content": "a", "reasoning_content": "y"}]
    assert turns[1]["reasoning"] == "y"


def test_a_problem_leaves_out_equivalent_answers_where_there_are_none():
    problem = Problem(instance_id="a", prompt="2+3?", answer="5")
    assert "equivalent_answers" not in problem.model_dump()
    several = Problem.model_validate(problem.model_dump() | {"equivalent_answers": ["five"]})
    assert several.model_dump()["equivalent_answers"] == ("five",)
