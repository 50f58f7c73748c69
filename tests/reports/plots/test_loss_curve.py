"""The plot of losses."""

import numpy as np
import pytest

from rollmill.jobs.training.metrics import MetricsLine
from rollmill.reports.plots.loss_curve import _running_mean, draw_loss_curve


def run(steps, every=0, start=3.0):
    points = []
    for step in range(1, steps + 1):
        loss = start / step**0.3
        points.append(MetricsLine(step=step, steps=steps, epoch=0, loss=loss, learning_rate=5e-5 * (1 - step / steps)))
        if every and step % every == 0:
            points.append(MetricsLine(step=step, steps=steps, epoch=0, eval_loss=loss * 1.1))
    return points


@pytest.mark.parametrize(
    "points",
    [run(1), run(30, 10), run(2000, 100), run(20, 5, start=0.0), [MetricsLine(step=1, steps=1, epoch=1, eval_loss=2.0)],
     [MetricsLine(step=n, steps=3, epoch=0, loss=10.0**-n) for n in range(5)]],
    ids=["one", "few", "many", "zero", "only_evaluated", "falls_far"],
)  # fmt: skip
def test_every_run_draws(points):
    assert draw_loss_curve(points, title="run $x$ 模型", best_step=10).startswith(b"\x89PNG")


def test_empty_input_draws_a_note():
    assert draw_loss_curve([], title="t") != draw_loss_curve(run(2), title="t")


def test_the_best_step_is_marked():
    assert draw_loss_curve(run(30, 10), title="t", best_step=20) != draw_loss_curve(run(30, 10), title="t")


def test_the_running_mean():
    steps = np.array([[step, value] for step, value in enumerate([4.0, 2.0, 6.0, 8.0], start=1)])
    indexes, means = _running_mean(steps)
    assert indexes.tolist() == [1, 2, 3, 4]
    assert means.tolist() == [4.0, 3.0, 4.0, 7.0]
