import json

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.progress import Progress
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.jobs.optimal_sampling.outcome import write_samples
from rollmill.jobs.training.rows import TrainingRow, read_training_rows
from rollmill.records import Rollout
from tests.jobs.optimal_sampling.runs import opened, parameters, questions, read
from tests.jobs.optimal_sampling.tiny_pairs import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "base")


def sample(number, text="w5 w6", *, alpha=0.5, gap=0.0, reason="stop", error=None):
    """A journal row as the sampler makes it."""
    messages = {"alpha_mean": alpha, "alpha_std": 0.0, "kl_theta_mean": 0.25, "kl_t_mean": 0.25, "kl_gap_mean": gap,
            "ess_ratio_mean": 1.0, "ess_ratio_std": 0.0}  # fmt: skip
    tokens = {"alpha": [alpha] * 2, "kl_theta": [0.25] * 2, "kl_t": [0.25] * 2, "ess_ratio": [1.0, None]}
    result = {} if error else {"diagnostics": messages, "tokens": tokens}
    return {
        "schema_version": 1, "instance_id": f"row-{number}", "sample_id": 0, "seed": number,
        "messages": [{"role": "user", "content": f"w{3 + number}"}], "completion": None if error else text,
        "reward": None, "success": None, "verdict": None, "error": error,
        "usage": {"prompt_tokens": 1, "completion_tokens": 0 if error else 2}, "latency_s": None,
        "finish_reason": None if error else reason, "model_calls": 0,
        "metadata": {"model": "m", "attempt": 0, "max_tokens": 6, **result},
    }  # fmt: skip


@pytest.fixture
def write(tmp_path, model):
    """Writes a run of such rows; its outcome."""

    def make(*rows, **options):
        options = {"model_t": str(model), "hint": "h"} | options
        requested = parameters(tmp_path, questions(len(rows)), model_theta=str(model), **options)
        progress = Progress(total=len(rows), left=len(rows), before=Tally())
        with opened(requested) as run:
            for row in rows:
                if run.pending(next(p for p in run.problems() if p.instance_id == row["instance_id"])):
                    outcome = RolloutOutcome.of_row(row)
                    run.journal.append(CompletedRollout(row["instance_id"], 0, dump_line(row), outcome))
                    progress.observe(outcome)
            return write_samples(run, requested, progress)

    return make


FAILED = {"type": "prompt", "message": "too long"}


def test_samples_and_diagnostics_are_written_in_row_order(write, tmp_path):
    outcome = write(sample(1), sample(0, "w7"), sample(2, error=FAILED), save_diagnostics=True)
    first, second = read(tmp_path / "out.jsonl")
    assert first == {
        "messages": [{"role": "user", "content": "w3"}, {"role": "assistant", "content": "w7"}],
        "sample_idx": 0, "question": "w3", "answer": "w0",
        "optimal_sampling": {
            "alpha_weighs": "theta", "convention": "q* ~ pi_theta^alpha * pi_t^(1-alpha)",
            "alpha_method": "kl_symmetry", "finish_reason": "stop",
        },
    }  # fmt: skip
    assert list(first)[:2] == ["messages", "sample_idx"]
    assert second["sample_idx"] == 1
    assert read(tmp_path / "out.diagnostics.jsonl")[0] == {
        "sample_idx": 0, "alpha_mean": 0.5, "alpha_std": 0.0, "kl_theta_mean": 0.25, "kl_t_mean": 0.25,
        "kl_gap_mean": 0.0, "ess_ratio_mean": 1.0, "ess_ratio_std": 0.0, "tokens": 2, "alpha_weighs": "theta",
        "convention": "q* ~ pi_theta^alpha * pi_t^(1-alpha)", "alpha_method": "kl_symmetry", "alpha": [0.5, 0.5],
        "kl_theta": [0.25, 0.25], "kl_t": [0.25, 0.25], "ess_ratio": [1.0, None],
    }  # fmt: skip
    assert (outcome.samples, outcome.made, outcome.failed, outcome.tokens) == (2, 3, 1, 4)
    assert outcome.lines()[0] == "2 samples, 4 tokens, 1 rows failed"
    statistics = (tmp_path / "out/statistics.txt").read_text()
    assert "0.25" in statistics
    assert statistics.endswith("\n\nhealth: nothing wrong in 3 rollouts\n")
    assert (tmp_path / "out/overview.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["totals"] == {
        "samples": 2,
        "failed": 1,
        "tokens": 4,
    }


def test_diagnostics_are_written_on_request_and_kept_current(write, tmp_path):
    file = tmp_path / "out.diagnostics.jsonl"
    assert write(sample(0), sample(1)).diagnostics is None
    assert not file.exists()
    write(sample(0), sample(1), save_diagnostics=True)
    file.write_bytes(b"")
    assert write(sample(0), sample(1)).diagnostics == file
    assert len(read(file)) == 2


def test_a_fixed_weight_is_noted(write, tmp_path):
    write(sample(0, alpha=0.9, gap=1.0), alpha_method="fixed", fixed_alpha=0.9)
    assert read(tmp_path / "out.jsonl")[0]["optimal_sampling"]["fixed_alpha"] == 0.9


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([sample(0)], {}, []),
        ([sample(0, alpha=0.85)], {}, ["the mean of alpha is 0.850, outside 0.2..0.8"]),
        ([sample(0, alpha=0.1)], {"alpha_method": "entropy"}, ["the mean of alpha is 0.100"]),
        ([sample(0, alpha=0.1)], {"alpha_method": "fixed", "fixed_alpha": 0.1}, []),
        ([sample(0, gap=0.002)], {}, []),
        ([sample(0, gap=0.003)], {}, ["KL symmetry was not reached: |KL theta - KL t| is 0.003 in the mean"]),
        ([sample(0, gap=0.2)], {"alpha_method": "entropy"}, []),
        ([sample(0, reason="length"), sample(1)], {}, []),
        ([sample(0, reason="length")], {}, ["1 of 1 samples were cut off: raise --max_tokens"]),
        ([sample(0, " \n"), sample(1)], {}, ["1 of 2 samples are empty"]),
        ([sample(0)], {"hint": None}, ["pi_t is pi_theta, so that q* is pi_theta"]),
        ([sample(0, error=FAILED)], {}, ["1 rows have no sample"]),
    ],
)
def test_notes_on_the_diagnostics(write, rows, options, message):
    notes = write(*rows, **options).notes
    assert len(notes) == len(message)
    assert all(item in note for item, note in zip(message, notes, strict=True))


def test_sample_without_verdict_or_error_is_ok_and_unjudged():
    counted = RolloutOutcome.of_row(sample(0))
    assert (counted.status, counted.success, counted.failed) == ("ok", False, False)
    assert RolloutOutcome.of_row(sample(0, error=FAILED)).status == "failed"
    assert Rollout.model_validate(sample(0)).status == "ok"
    assert Rollout.model_validate(sample(0, error=FAILED)).status == "failed"


def test_curation_and_training_read_the_run_and_the_samples(write, tmp_path):
    write(sample(0, "w7"), sample(1), sample(2, error=FAILED))
    table = read_corpus([str(tmp_path / "out")]).table
    assert table["status"].to_list() == ["ok", "ok", "failed"]
    assert table["reward"].to_list() == table["success"].to_list() == [None] * 3
    rows = [row for _, row in read_training_rows(str(tmp_path / "out.jsonl"))]
    assert all(isinstance(row, TrainingRow) for row in rows)
    assert rows[0].messages == [{"role": "user", "content": "w3"}, {"role": "assistant", "content": "w7"}]
