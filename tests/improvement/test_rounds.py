"""The loop's steps, on runs made by hand."""

import json

import pytest

from rollmill.curation.exporting import ExportOutcome
from rollmill.errors import InputError
from rollmill.evaluation.parameters import NAME
from rollmill.improvement.held_out import question_key
from rollmill.improvement.parameters import ROLLOUTS, Improve
from rollmill.improvement.rounds import (
    WITH_EXAMPLES,
    begin,
    check_problems,
    choose_rows,
    judge,
    plan_round,
    round_rows,
    write_history,
)
from rollmill.problems import Prompting
from rollmill.records import Problem
from rollmill.training.manifest import Trained
from tests.rollouts.made import append, opened

PROBLEMS = 12


def write_rows(path, questions):
    path.write_text("".join(json.dumps({"prompt": question, "answer": 1}) + "\n" for question in questions))
    return str(path)


@pytest.fixture
def parameters(tmp_path):
    return Improve(
        model_path="base",
        dataset=write_rows(tmp_path / "train.jsonl", [f"train {n}" for n in range(PROBLEMS)]),
        held_out=write_rows(tmp_path / "held_out.jsonl", [f"held out {n}" for n in range(PROBLEMS)]),
        few_shot=write_rows(tmp_path / "few_shot.jsonl", ["example"]),
        system_prompt="be brief",
        output_dir=str(tmp_path / "improved"),
    )


def evaluated(folder, right, name=NAME):
    """An evaluation in which so many of the problems are right."""
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder / name, rows=PROBLEMS, num_rollout=1) as run:
        for number in range(PROBLEMS):
            append(run.journal, f"p{number}", 0, error=0.0 if number < right else 1.0)


def trained(plan):
    return Trained(
        directory=plan.folder / "adapter", adapter=None, merged=plan.folder / "adapter/merged", steps=3, best_step=3,
        epochs=3.0, train_loss=0.5, eval_loss=None, tokens=9, seconds=1.0, rows=2, validation_rows=0, dropped={},
    )  # fmt: skip


def play(parameters, history, right):
    plan = plan_round(parameters, history)
    plan.folder.mkdir(parents=True)
    with opened(plan.folder / ROLLOUTS, rows=2, num_rollout=3) as run:
        append(run.journal, "p0", 0, completion="a")
        append(run.journal, "p0", 1, completion="b")
        append(run.journal, "p1", 0, error=1.0)
        append(run.journal, "p1", 2, state="failed:timeout")
    chosen = choose_rows(parameters, plan)
    evaluated(plan.folder, right)
    return judge(parameters, history, plan, chosen, trained(plan)), plan, chosen


def test_a_problem_that_is_trained_on_is_refused(tmp_path, parameters):
    assert check_problems(parameters) == PROBLEMS
    shared = write_rows(tmp_path / "shared.jsonl", ["something new", " Train   3 ", "train 4"])
    with pytest.raises(InputError, match=r"2 of 3 held-out problems are trained on .*shared\.jsonl") as caught:
        check_problems(parameters.model_copy(update={"held_out": shared}))
    assert "\n" not in str(caught.value)


def test_questions_are_the_same_but_for_space_and_capitals():
    one = Problem(instance_id="a", prompt="What is\n 1+1?")
    other = Problem(instance_id="b", prompt="what is 1+1?", answer="2")
    assert question_key(one) == question_key(other)
    assert question_key(one) != question_key(Problem(instance_id="a", prompt="What is 1+2?"))


def test_held_out_problems_are_required(parameters):
    with pytest.raises(ValueError, match="--held_out: required"):
        Improve(model_path="m", dataset="d")


def test_rows_are_asked_without_the_examples(parameters):
    evaluated(parameters.folder(0), 0)
    evaluated(parameters.folder(0), 5, WITH_EXAMPLES)
    history = begin(parameters)
    assert (history.base_accuracy.mean, history.with_examples.mean) == (0.0, 5 / PROBLEMS)
    _, plan, chosen = play(parameters, history, 12)
    assert isinstance(chosen, ExportOutcome)
    assert (chosen.read, chosen.kept) == (1, 1)
    [row] = map(json.loads, (plan.folder / "training_data/sft.jsonl").read_text().splitlines())
    assert row["messages"][0] == {"role": "system", "content": "be brief"}
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == "a"
    assert row["metadata"]["verifier"] == "numeric@1"
    assert "- successful only" in (plan.folder / "training_data/README.md").read_text()
    assert plan.training.train_data == [str(plan.folder / "training_data/sft.jsonl")]


def test_a_better_round_is_kept_and_the_next_begins_from_it(parameters):
    evaluated(parameters.folder(0), 0)
    evaluated(parameters.folder(0), 3, WITH_EXAMPLES)
    history, plan, _ = play(parameters, begin(parameters), 10)
    assert (history.rounds[0].kept, history.standing, history.stopped) == (True, 1, None)
    assert history.goes_on(parameters.rounds)
    assert (plan.policy, plan.training.model_path, plan.generation.seed) == ("base", "base", 1)
    second = plan_round(parameters, history)
    assert second.policy == second.training.model_path == str(plan.folder / "adapter/merged")
    assert second.generation.seed == 2
    anew = plan_round(parameters.model_copy(update={"train_from": "base"}), history)
    assert (anew.policy, anew.training.model_path) == (second.policy, "base")


@pytest.mark.parametrize("right", [6, 7, 2])
def test_a_round_that_is_not_better_beyond_noise_is_rolled_back(parameters, right):
    evaluated(parameters.folder(0), 6)
    evaluated(parameters.folder(0), 6, WITH_EXAMPLES)
    history, _, _ = play(parameters, begin(parameters), right)
    assert not history.rounds[0].kept
    assert (history.policy, history.standing) == ("base", 0)
    assert history.stopped == "round 1 was not better beyond noise, and was rolled back"
    assert not history.goes_on(parameters.rounds)


def test_everything_is_written(parameters):
    evaluated(parameters.folder(0), 0)
    evaluated(parameters.folder(0), 4, WITH_EXAMPLES)
    history, _, _ = play(parameters, begin(parameters), 12)
    improved = write_history(parameters, history)
    assert improved.files["picture"].read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(improved.files["rounds"].read_text())
    assert numbers["rounds"][0]["kept"] is True
    assert numbers["rounds"][0]["right"] == 2
    rows = round_rows(history)
    assert [row["policy"] for row in rows] == ["base", "base, with examples", "round 1"]
    assert rows[-1]["difference"] == "+100.0% (+100.0% to +100.0%)"
    assert improved.lines()[-4].startswith("policy: ")


def test_prompting_of_rollouts_and_of_training_differ_only_in_examples(parameters):
    generation = parameters.generation(1, "m")
    evaluation = parameters.evaluation("m", "folder")
    assert generation.few_shot == parameters.few_shot
    assert evaluation.few_shot is None
    assert (
        Prompting.from_flags(None, None, "be brief").system_prompt
        == generation.system_prompt
        == evaluation.system_prompt
    )
    assert (evaluation.temperature, evaluation.num_rollout, generation.temperature) == (0.0, 1, 0.8)
