"""Each finding of the health check, and that sound rollouts have none."""

import json
from pathlib import Path

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.reports import health
from rollmill.reports.health import check_health
from tests.exports.sample_corpus import rollout

RUN = Path(__file__).parents[1] / "generation" / "written_by_1" / "run"
LOOP = "and then we go on " * 100


@pytest.fixture
def check(tmp_path):
    """Checks rows, written as a file."""

    def check(*rows):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return check_health(read_corpus([str(tmp_path / "rows.jsonl")]))

    return check


def counts(result):
    return {finding.name: finding.count for finding in result.findings}


GOOD = [rollout("p0", 0, 1.0, answer="yes"), rollout("p0", 1, 0.0, answer="no")]


def test_sound_rollouts_have_no_findings(check):
    result = check(*GOOD)
    assert result.findings == []
    assert result.lines() == ["health: nothing wrong in 2 rollouts"]


def calling(*ids, text=""):
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def model_turn(text, **more):
    return {"role": "assistant", "content": text, **more}


def talk(*turns, **more):
    between = [message for turn in turns for message in ({"role": "user", "content": "go on"}, turn)]
    return {"instance_id": "p1", "sample_id": 0, "reward": 0.0, "success": False, "messages": between} | more


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (talk(model_turn("a"), model_turn("  "), model_turn("b")), "hollow_turns"),
        (talk(model_turn("", reasoning_content="only thoughts")), "hollow_turns"),
        (talk(model_turn([{"type": "text", "text": " "}])), "hollow_turns"),
        (talk(model_turn(LOOP)), "runaway_turns"),
        (talk(model_turn("x" + "\n" * 900)), "runaway_turns"),
        (talk(model_turn("so", reasoning_content=LOOP), model_turn("b")), "runaway_turns"),
        (talk(calling("c1"), calling("c1")), "repeated_call_ids"),
        (talk(model_turn("a"), finish_reason="length"), "answers_cut"),
        (talk(model_turn("a"), success=True, verdict={"status": "unparseable"}), "success_unparseable"),
        (talk(model_turn("a"), reward=None), "reward_missing"),
        (talk(model_turn("a"), reward=-1e9), "reward_absurd"),
        (talk(model_turn("a"), success=True, evaluation_info={"success": False}), "success_denied"),
        (talk(model_turn("a"), success=True, reward=1.0, git_diff="\n"), "success_without_change"),
    ],
)
def test_finding_of_one_rollout(check, row, name):
    result = check(*GOOD, row)
    assert counts(result) == {name: 1}
    assert result.findings[0].examples == ["p1/0"]


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
    result = check(*rows)
    assert counts(result) == {"reward_against_success": 1}
    assert result.findings[0].examples == ["p0/0"]


@pytest.mark.parametrize(
    "text",
    [
        LOOP[:500],
        "| a | b |\n" + "".join(f"| {index} | {index * index} |\n" for index in range(60)),
        " ".join(str(index) for index in range(400)),
        "Let us count. " * 3 + "".join(f"Step {index}: {index} plus one is {index + 1}. " for index in range(80)),
    ],
)
def test_varied_text_is_no_runaway(check, text):
    assert check(talk(model_turn(text))).findings == []


def test_turns_with_calls_alone_and_failed_rollouts_are_not_hollow(check):
    failed = talk(model_turn(""), sample_id=1, error={"type": "timeout", "message": "m"}, success=None, reward=None)
    assert check(talk(calling("c1"), model_turn("done")), failed).findings == []


def test_a_line_names_a_few_and_says_what_to_do(check):
    result = check(*(talk(model_turn("a"), sample_id=position, finish_reason="length") for position in range(7)))
    [first, line] = result.lines()
    assert first == "health: 1 finding in 7 rollouts"
    assert "7 of 7 rollouts were cut off at the limit on tokens (p1/0, p1/1, p1/2, p1/3, p1/4, ...)" in line
    assert "raise --max_tokens" in line


def test_ids_from_outside_stay_on_their_line(check):
    [_, line] = check(talk(model_turn("a"), instance_id="p\n\x1b[31m", finish_reason="length")).lines()
    assert line.isprintable()


def test_texts_of_many_rollouts_are_sampled(check, monkeypatch):
    monkeypatch.setattr(health, "_MOST_READ", 4)
    result = check(*(talk(model_turn(""), sample_id=position) for position in range(10)))
    assert (result.rollouts, result.read, counts(result)) == (10, 4, {"hollow_turns": 4})
    assert "(the text of 4)" in result.lines()[0]


def test_a_run_has_its_problems_checked():
    result = check_health(read_corpus([str(RUN)]))
    assert (result.rollouts, result.problems_checked) == (8, 4)
    assert result.lines()[0] == "health: nothing wrong in 8 rollouts and 4 ground truths"
