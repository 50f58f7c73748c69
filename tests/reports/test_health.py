"""Each finding, and that rollouts as they should be have none."""

import json
from pathlib import Path

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.reports import health
from rollmill.reports.health import check_health
from tests.exports.made import rollout

RUN = Path(__file__).parents[1] / "generation" / "written_by_1" / "run"
LOOP = "and then we go on " * 100


@pytest.fixture
def check(tmp_path):
    """Checks rows, written as a file."""

    def check(*rows):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return check_health(read_corpus([str(tmp_path / "rows.jsonl")]))

    return check


def counts(found):
    return {finding.name: finding.count for finding in found.findings}


GOOD = [rollout("p0", 0, 1.0, answer="yes"), rollout("p0", 1, 0.0, answer="no")]


def test_nothing_is_found_in_rollouts_as_they_should_be(check):
    found = check(*GOOD)
    assert found.findings == []
    assert found.lines() == ["health: nothing wrong in 2 rollouts"]


def calling(*ids, text=""):
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def said(text, **more):
    return {"role": "assistant", "content": text, **more}


def talk(*turns, **more):
    between = [message for turn in turns for message in ({"role": "user", "content": "go on"}, turn)]
    return {"instance_id": "p1", "sample_id": 0, "reward": 0.0, "success": False, "messages": between} | more


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (talk(said("a"), said("  "), said("b")), "hollow_turns"),
        (talk(said("", reasoning_content="only thoughts")), "hollow_turns"),
        (talk(said([{"type": "text", "text": " "}])), "hollow_turns"),
        (talk(said(LOOP)), "runaway_turns"),
        (talk(said("x" + "\n" * 900)), "runaway_turns"),
        (talk(said("so", reasoning_content=LOOP), said("b")), "runaway_turns"),
        (talk(calling("c1"), calling("c1")), "repeated_call_ids"),
        (talk(said("a"), finish_reason="length"), "answers_cut"),
        (talk(said("a"), success=True, verdict={"status": "unparseable"}), "success_unparseable"),
        (talk(said("a"), reward=None), "reward_missing"),
        (talk(said("a"), reward=-1e9), "reward_absurd"),
        (talk(said("a"), success=True, evaluation_info={"success": False}), "success_denied"),
        (talk(said("a"), success=True, reward=1.0, git_diff="\n"), "success_without_change"),
    ],
)
def test_what_is_wrong_with_one_rollout(check, row, name):
    found = check(*GOOD, row)
    assert counts(found) == {name: 1}
    assert found.findings[0].examples == ["p1/0"]


def test_an_empty_answer_that_is_right(check):
    assert counts(check(*GOOD, rollout("p1", 0, 1.0, answer=""))) == {"hollow_turns": 1, "success_of_nothing": 1}


def test_repeated_ids(check):
    assert counts(check(*GOOD, rollout("p0", 1, 0.0, answer="again"))) == {"repeated_ids": 2}


def test_a_right_rollout_with_less_reward_than_a_wrong_one_of_its_problem(check):
    rows = [
        rollout("p0", 0, 0.2, success=True),
        rollout("p0", 1, 0.7, success=False),
        rollout("p1", 0, 0.1, success=True),
    ]
    found = check(*rows)
    assert counts(found) == {"reward_against_success": 1}
    assert found.findings[0].examples == ["p0/0"]


@pytest.mark.parametrize(
    "text",
    [
        LOOP[:500],
        "| a | b |\n" + "".join(f"| {index} | {index * index} |\n" for index in range(60)),
        " ".join(str(index) for index in range(400)),
        "Let us count. " * 3 + "".join(f"Step {index}: {index} plus one is {index + 1}. " for index in range(80)),
    ],
)
def test_text_that_goes_on_is_not_called_runaway(check, text):
    assert check(talk(said(text))).findings == []


def test_turns_with_calls_alone_and_failed_rollouts_are_not_hollow(check):
    failed = talk(said(""), sample_id=1, error={"type": "timeout", "message": "m"}, success=None, reward=None)
    assert check(talk(calling("c1"), said("done")), failed).findings == []


def test_a_line_names_a_few_and_says_what_to_do(check):
    found = check(*(talk(said("a"), sample_id=place, finish_reason="length") for place in range(7)))
    [first, line] = found.lines()
    assert first == "health: 1 finding in 7 rollouts"
    assert "7 of 7 rollouts were cut off at the limit on tokens (p1/0, p1/1, p1/2, p1/3, p1/4, ...)" in line
    assert "raise --max_tokens" in line


def test_ids_from_outside_stay_on_their_line(check):
    [_, line] = check(talk(said("a"), instance_id="p\n\x1b[31m", finish_reason="length")).lines()
    assert line.isprintable()


def test_of_many_the_text_of_some_is_read(check, monkeypatch):
    monkeypatch.setattr(health, "_MOST_READ", 4)
    found = check(*(talk(said(""), sample_id=place) for place in range(10)))
    assert (found.rollouts, found.read, counts(found)) == (10, 4, {"hollow_turns": 4})
    assert "(the text of 4)" in found.lines()[0]


def test_a_run_has_its_problems_checked():
    found = check_health(read_corpus([str(RUN)]))
    assert (found.rollouts, found.problems_checked) == (8, 4)
    assert found.lines()[0] == "health: nothing wrong in 8 rollouts and 4 ground truths"
