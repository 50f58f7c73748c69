"""A run that is scored again by another verifier."""

import orjson
import pytest

from rollmill.errors import InputError
from rollmill.generation.job import opened_run
from rollmill.generation.progress import progress_of
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.problems import build_messages
from tests.generation.run_factory import append

ROWS = [
    {"id": "a", "prompt": "1 + 1?", "answer": "2", "choices": ["1", "3", "2"]},
    {"id": "b", "prompt": "Of France?", "answer": "Paris", "choices": ["Paris", "Rome"]},
    {"id": "c", "prompt": "Of Peru?", "answer": "Lima"},
]


def job_of(folder, verifier, rows=ROWS, **options):
    folder.mkdir(exist_ok=True)
    path = folder / "data.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    parameters = {"model_path": "m", "model_name": "n", "dataset": str(path), "num_rollout": 1, "max_bad_share": 0.5}
    return jobs(RejectSampling(**parameters, output_dir=str(folder), verifier=verifier, **options))[0]


@pytest.fixture
def run_of_exact(tmp_path):
    with opened_run(job_of(tmp_path, "exact")) as run:
        for name, completion in {"a": "C", "b": "<answer>Paris</answer>", "c": "Lima"}.items():
            append(run.journal, name, 0, completion=completion)
    return tmp_path


def score_again(folder, verifier, **options):
    job = job_of(folder, verifier, reverify=True, **options)
    with opened_run(job) as run:
        count = job.score_again(run)
        outcome = job.report(run, progress_of(run))
        groups = {problem.instance_id: rollouts[0] for problem, rollouts in run.groups()}
    return count, outcome, groups


def test_another_verifier_scores_again_and_refused_problems_are_in_no_rate(run_of_exact):
    count, outcome, rollouts = score_again(run_of_exact, "choice")
    assert count == 2
    assert {name: each.success for name, each in rollouts.items()} == {"a": True, "b": True, "c": None}
    assert rollouts["c"].error.type == "problem_refused"
    assert rollouts["c"].error.message.startswith("there are no choices")
    assert outcome.statistics.accepted_of_judged == 1.0
    assert outcome.statistics.failed_kinds == {"problem_refused": 1}
    assert any("1 rollouts are of problems that the verifier cannot judge" in note for note in outcome.notes)


def test_scoring_again_with_several_verifiers_and_back(run_of_exact):
    score_again(run_of_exact, "numeric")
    _, _, rollouts = score_again(run_of_exact, "exact=1 choice=3")
    assert [each.reward for name, each in rollouts.items() if name != "c"] == [0.75, 1.0]
    _, outcome, rollouts = score_again(run_of_exact, "exact")
    assert [each.success for each in rollouts.values()] == [False, True, True]
    assert outcome.statistics.coverage.failed == 0


def test_other_problems_are_another_run_when_scoring_again(run_of_exact):
    changed = [{**ROWS[0], "prompt": "2 + 2?"}, *ROWS[1:]]
    with pytest.raises(InputError, match="holds another run: problems"):
        score_again(run_of_exact, "choice", rows=changed)


def test_prompts_show_the_choices_where_the_run_was_made_for_them(run_of_exact, tmp_path):
    requested = job_of(tmp_path, "choice")
    assert requested.prompting.identity["choices"] is True
    again = job_of(run_of_exact, "choice", reverify=True)
    assert "choices" not in again.prompting.identity
    with opened_run(job_of(tmp_path / "other", "choice", rows=ROWS[:2])) as run:
        problem = next(run.problems())
    assert build_messages(problem, requested.prompting)[-1]["content"] == "1 + 1?\n\nA. 1\nB. 3\nC. 2"
    assert build_messages(problem, again.prompting)[-1]["content"] == "1 + 1?"


def test_prompts_that_list_the_choices_themselves_are_left_alone(tmp_path):
    rows = [{**ROWS[0], "prompt": "1 + 1?\nA) 1\nB) 3\nC) 2"}]
    job = job_of(tmp_path, "choice", rows=rows)
    with opened_run(job) as run:
        problem = next(run.problems())
    assert build_messages(problem, job.prompting)[-1]["content"] == rows[0]["prompt"]
    templated = job_of(tmp_path, "choice", rows=ROWS[:1], prompt_template="{prompt} of {choices}")
    assert not templated.prompting.shows_choices
