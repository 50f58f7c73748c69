"""The steps of the loop, on recorded runs."""

import json

import pytest

from rollmill.errors import InputError
from rollmill.jobs.evaluation.parameters import NAME
from rollmill.jobs.improvement.history import History
from rollmill.jobs.improvement.parameters import ROLLOUTS, Improve
from rollmill.jobs.improvement.rounds import (
    WITH_EXAMPLES,
    begin,
    check_problems,
    choose_rows,
    judge,
    plan_round,
    round_rows,
    write_history,
)
from rollmill.jobs.training.manifest import Trained
from rollmill.problems import Prompting
from tests.generation.run_factory import append, opened
from tests.jobs.improvement.recorded_rollouts import recorded, write_lines

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


def test_a_problem_of_any_feed_is_refused(tmp_path, parameters):
    other = write_rows(tmp_path / "other.jsonl", ["new", "held out 3"])
    settings = tmp_path / "other.yaml"
    settings.write_text(f"dataset: {other}\nprompt_template: 'Think. {{prompt}}'\n")
    data = tmp_path / "rows.jsonl"
    rows = [recorded("a", "new"), recorded("b", "Answer this:\nHELD OUT 5"), recorded("c", "held out 3")]
    write_lines(data, rows)
    fed = parameters.model_copy(update={"feed": [f"reject_sampling={settings}", f"data={data}"]})
    with pytest.raises(InputError, match="2 of 12 held-out problems are trained on") as caught:
        check_problems(fed)
    assert f"row-3 is row-1 of {other}" in str(caught.value)
    assert f"row-5 is row 2 of {data}" in str(caught.value)
    assert str(parameters.held_out) in str(caught.value)
    write_lines(data, rows[:1])
    write_rows(tmp_path / "other.jsonl", ["new"])
    assert check_problems(fed) == PROBLEMS


def test_held_out_problems_are_required(parameters):
    with pytest.raises(ValueError, match="--held_out: required"):
        Improve(model_path="m", dataset="d")


def test_rows_have_prompts_without_the_examples(parameters):
    evaluated(parameters.folder(0), 0)
    evaluated(parameters.folder(0), 5, WITH_EXAMPLES)
    history = begin(parameters)
    assert (history.base_accuracy.mean, history.with_examples.mean) == (0.0, 5 / PROBLEMS)
    _, plan, chosen = play(parameters, history, 12)
    assert (chosen.rows, chosen.feeds, chosen.dropped) == (
        1,
        {"rollouts": 1},
        {"failed": 1, "not_successful": 1, "over_limit": 1},
    )
    [row] = map(json.loads, (plan.folder / "training_data/sft.jsonl").read_text().splitlines())
    assert row["messages"][0] == {"role": "system", "content": "be brief"}
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == "a"
    assert row["metadata"]["verifier"] == "numeric@1"
    assert "- successful only" in (plan.folder / "training_data/README.md").read_text()
    assert plan.training.train_data == [str(plan.folder / "training_data/sft.jsonl")]


def test_better_round_is_kept_and_the_next_starts_from_it(parameters):
    evaluated(parameters.folder(0), 0)
    evaluated(parameters.folder(0), 3, WITH_EXAMPLES)
    history, plan, _ = play(parameters, begin(parameters), 10)
    assert (history.rounds[0].kept, history.standing, history.stopped) == (True, 1, None)
    assert history.continues(parameters.rounds)
    assert (plan.policy, plan.training.model_path, plan.feeds[0].parameters.seed) == ("base", "base", 1)
    second = plan_round(parameters, history)
    assert second.policy == second.training.model_path == str(plan.folder / "adapter/merged")
    assert second.feeds[0].parameters.seed == 2
    anew = plan_round(parameters.model_copy(update={"train_from": "base"}), history)
    assert (anew.policy, anew.training.model_path) == (second.policy, "base")


@pytest.mark.parametrize("right", [6, 7, 2])
def test_a_round_that_is_not_significantly_better_is_rolled_back(parameters, right):
    evaluated(parameters.folder(0), 6)
    evaluated(parameters.folder(0), 6, WITH_EXAMPLES)
    history, _, _ = play(parameters, begin(parameters), right)
    assert not history.rounds[0].kept
    assert (history.policy, history.standing) == ("base", 0)
    assert history.stopped == "round 1 was not better beyond noise, and was rolled back"
    assert not history.continues(parameters.rounds)


def test_all_files_are_written(parameters):
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
    assert improved.lines()[-5].startswith("policy: ")


def test_history_counts_rows_by_feed(tmp_path, parameters):
    data = write_lines(tmp_path / "rows.jsonl", [recorded("a", "new"), recorded("b", "newer", verdict=None)])
    fed = parameters.model_copy(update={"feed": [f"data={data}"]})
    evaluated(fed.folder(0), 0)
    evaluated(fed.folder(0), 0, WITH_EXAMPLES)
    history, plan, chosen = play(fed, begin(fed), 12)
    assert [feed.name for feed in plan.to_generate] == ["rollouts"]
    item = history.rounds[0]
    assert (item.rollouts, item.right, item.rows, item.feeds) == (4, 2, 2, {"rollouts": 1, "data_1": 1})
    assert round_rows(history)[-1]["trained on"] == "2 (rollouts 1, data_1 1)"
    assert chosen.line() == (
        "2 rows of 2 problems (rollouts 1, data_1 1); dropped: failed 1, not_successful 1, over_limit 1, unverified 1"
    )


def test_a_history_from_before_there_were_feeds_is_read(parameters):
    evaluated(parameters.folder(0), 0)
    evaluated(parameters.folder(0), 0, WITH_EXAMPLES)
    history, _, _ = play(parameters, begin(parameters), 12)
    kept = json.loads(history.model_dump_json())
    del kept["rounds"][0]["feeds"]
    assert History.model_validate(kept).rounds[0].feeds == {}


def test_prompting_of_rollouts_and_of_training_differ_only_in_examples(parameters):
    [feed] = parameters.plan_sources(1, "m")
    generation = feed.parameters
    evaluation = parameters.evaluation("m", "folder")
    assert generation.few_shot == parameters.few_shot
    assert evaluation.few_shot is None
    assert (
        Prompting.from_flags(None, None, "be brief").system_prompt
        == generation.system_prompt
        == evaluation.system_prompt
    )
    assert (evaluation.temperature, evaluation.num_rollout, generation.temperature) == (0.0, 1, 0.8)
