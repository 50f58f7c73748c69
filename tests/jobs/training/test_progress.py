import pytest

from rollmill.errors import InputError
from rollmill.jobs.training.checkpoints import CHECKPOINTS, TrainingCheckpoint, checkpoint_path, mark_complete
from rollmill.jobs.training.metrics import METRICS, MetricsLine, cut_metrics
from rollmill.jobs.training.progress import TrainingProgress
from rollmill.terminal.progress_bar import SnapshotSource


def step(number, *, seconds=None, **more):
    """One line: a step a second, 50 tokens each."""
    seconds = float(number) if seconds is None else seconds
    options = {"step": number, "steps": 100, "epoch": number / 50, "loss": 1 / number, "tokens": 50 * number}
    return MetricsLine(**{**options, "seconds": seconds, **more})


def evaluation(number, loss):
    return step(number, loss=None, eval_loss=loss)


def note(folder, *lines):
    with (folder / METRICS).open("ab") as file:
        file.writelines(line.line() for line in lines)


def checkpoint(folder, number):
    checkpoint_path(folder / CHECKPOINTS, number).mkdir(parents=True)
    mark_complete(folder / CHECKPOINTS, TrainingCheckpoint(step=number))


def test_before_the_first_step_it_is_loading(tmp_path):
    progress: SnapshotSource = TrainingProgress(tmp_path / "not there yet")
    snapshot = progress.snapshot()
    assert (snapshot.done, snapshot.total) == (0, None)
    assert snapshot.describe() == "loading model and rows"


def test_snapshot_has_steps_losses_rates_and_eta(tmp_path):
    progress = TrainingProgress(tmp_path)
    note(tmp_path, *(step(number) for number in range(1, 21)), evaluation(20, 0.25), step(21), step(22))
    snapshot = progress.snapshot()
    assert (snapshot.done, snapshot.total, snapshot.tokens_per_s, snapshot.eta_s) == (22, 100, 50.0, 78.0)
    assert snapshot.describe() == (
        "22/100 steps, epoch 0.44, loss 0.04545, eval loss 0.25, 50 tokens/s, 1 min 18 s left"
    )


def test_rates_are_those_of_the_last_minute(tmp_path):
    progress = TrainingProgress(tmp_path)
    note(tmp_path, *(step(number) for number in range(1, 41)))
    note(tmp_path, *(step(40 + number, seconds=40.0 + 10 * number) for number in range(1, 31)))
    snapshot = progress.snapshot()
    assert (snapshot.tokens_per_s, snapshot.eta_s) == (5.0, 300.0)


def test_a_resumed_run_begins_at_its_checkpoint(tmp_path):
    note(tmp_path, *(step(number) for number in range(1, 38)))
    checkpoint(tmp_path, 30)
    progress = TrainingProgress(tmp_path)
    assert progress.snapshot().describe() == "30/100 steps, loading model and rows"
    cut_metrics(tmp_path / METRICS, 30)
    assert progress.snapshot().done == 30
    assert progress.snapshot().is_loading
    note(tmp_path, step(31), step(32))
    snapshot = progress.snapshot()
    assert (snapshot.done, snapshot.is_loading) == (32, False)
    assert (snapshot.tokens_per_s, snapshot.eta_s) == (50.0, 68.0)


def test_another_worker_resumes_from_an_earlier_checkpoint(tmp_path):
    progress = TrainingProgress(tmp_path)
    note(tmp_path, *(step(number) for number in range(1, 38)))
    assert progress.snapshot().done == 37
    cut_metrics(tmp_path / METRICS, 30)
    note(tmp_path, step(31, seconds=35.0), step(32, seconds=40.0))
    snapshot = progress.snapshot()
    assert (snapshot.done, snapshot.tokens_per_s) == (32, pytest.approx(50, rel=0.4))


def test_another_kind_of_run_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not the manifest of a training run"):
        TrainingProgress(tmp_path)
