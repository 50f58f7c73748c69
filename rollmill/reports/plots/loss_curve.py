"""Plot `loss.png`: the loss over the steps of training, and in evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rollmill.reports.plots.bins import Numbers
from rollmill.reports.plots.canvas import INK, MAIN, OTHER, PAPER, draw_note, new_figure, style, to_png
from rollmill.reports.plots.labels import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONG_RATIO = 30.0
_FEW = 40
"""Up to this many steps, each is marked, and there is no running mean."""


class Point(Protocol):
    """One line of `metrics.jsonl`: a step has a `loss`, an evaluation an `eval_loss`."""

    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def loss(self) -> float | None: ...  # noqa: D102
    @property
    def eval_loss(self) -> float | None: ...  # noqa: D102
    @property
    def learning_rate(self) -> float | None: ...  # noqa: D102


def draw_loss_curve(points: Sequence[Point], *, title: str, best_step: int | None = None) -> bytes:
    """Return the plot as PNG bytes: loss above, learning rate below; an evaluation at `best_step` is marked.

    Long runs also have a running mean over a fortieth of the steps. The axis is logarithmic where losses differ more
    than 30-fold.
    """
    figure = new_figure(8, 5)
    figure.suptitle(label(title), color=INK, fontsize=12, x=0.01, ha="left")
    steps = [(point.step, point.loss) for point in points if point.loss is not None]
    evaluations = [(point.step, point.eval_loss) for point in points if point.eval_loss is not None]
    rates = [(point.step, point.learning_rate) for point in points if point.learning_rate is not None]
    if not steps and not evaluations:
        draw_note(figure.add_subplot(), "No step was made")
        return to_png(figure)
    above, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw_losses(above, np.array(steps).reshape(-1, 2), np.array(evaluations).reshape(-1, 2), best_step)
    style(beneath)
    if rates:
        beneath.plot(*zip(*rates, strict=True), color=MAIN, linewidth=2)
    beneath.set_ylim(bottom=0)
    beneath.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    beneath.set_xlabel("optimizer step", color=INK)
    beneath.set_title("learning rate", color=INK, fontsize=10, loc="left")
    beneath.xaxis.get_major_locator().set_params(integer=True)
    return to_png(figure)


def _draw_losses(axes: Axes, steps: Numbers, evaluations: Numbers, best_step: int | None) -> None:
    """Draw the losses.

    Args:
        axes: where to draw.
        steps: step and loss, of shape (n, 2).
        evaluations: step and loss, of shape (m, 2).
        best_step: the step of the best evaluation.
    """
    style(axes)
    few = len(steps) <= _FEW
    if len(steps):
        axes.plot(*steps.T, color=MAIN, linewidth=1.5, alpha=1 if few else 0.5, marker="o" if few else "",
                  markersize=3, label="training")  # fmt: skip
    if not few:
        axes.plot(*_running_mean(steps), color=MAIN, linewidth=2.5, label="training, running mean")
    if len(evaluations):
        axes.plot(*evaluations.T, color=OTHER, linewidth=2, marker="s", markersize=4, label="evaluation")
    for step, loss in evaluations:
        if step == best_step:
            axes.annotate(
                f"best: {loss:.4g}", (step, loss), (0, 10), textcoords="offset points", ha="center", fontsize=9,
                color=INK, bbox={"boxstyle": "round,pad=0.2", "facecolor": PAPER, "edgecolor": OTHER},
            )  # fmt: skip
    losses = np.concatenate([steps[:, 1], evaluations[:, 1]])
    if losses.min() > 0 and losses.max() > _LONG_RATIO * losses.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, max(float(losses.max()) * 1.12, 1e-6))
    axes.set_title("loss per trained token, in nats", color=INK, fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="upper right", framealpha=0.9, facecolor=PAPER, labelcolor=INK)


def _running_mean(steps: Numbers) -> tuple[Numbers, Numbers]:
    """Return the steps, and at each the mean over the last fortieth of all steps; both of shape (n,)."""
    width = max(2, len(steps) // 40)
    total = np.concatenate([[0.0], np.cumsum(steps[:, 1])])
    ends = np.arange(1, len(steps) + 1)
    begins = np.maximum(0, ends - width)
    return steps[:, 0], (total[ends] - total[begins]) / (ends - begins)
