"""How far a training run is, by what it writes: the process that trains may be on another machine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from rollmill.jobs.training.checkpoints import CHECKPOINTS, whole_checkpoints
from rollmill.jobs.training.manifest import read_training_manifest
from rollmill.jobs.training.metrics import METRICS, MetricsLine, MetricsTail, read_metrics
from rollmill.statistics.throughput import RateMeter, format_seconds


class TrainingSnapshot(NamedTuple):
    """A run at one moment."""

    done: int
    """Optimizer steps."""
    total: int | None
    """None before the first step of all."""
    is_loading: bool
    """No step was made since the beginning."""
    epoch: float
    loss: float | None
    """Of the last step."""
    eval_loss: float | None
    """Of the last evaluation."""
    tokens_per_s: float
    eta_s: float | None
    """Seconds to the end at the present rate; None while there is none."""

    def describe(self) -> str:
        """Return the snapshot in one line."""
        steps = f"{self.done}/{self.total} steps"
        if self.is_loading:
            return f"{steps}, loading model and rows" if self.done else "loading model and rows"
        loss = "-" if self.loss is None else f"{self.loss:.4g}"
        evaluated = "" if self.eval_loss is None else f", eval loss {self.eval_loss:.4g}"
        remaining = "-" if self.eta_s is None else format_seconds(self.eta_s)
        speed = f"{self.tokens_per_s:.0f} tokens/s"
        return f"{steps}, epoch {self.epoch:.2f}, loss {loss}{evaluated}, {speed}, {remaining} left"


class TrainingProgress:
    """Reads `metrics.jsonl` of a run's directory; begins where the run will, at its last checkpoint or at its end.

    Raises `InputError` where the directory is another kind of run's.
    """

    def __init__(self, directory: Path) -> None:
        manifest = read_training_manifest(directory)
        result = manifest.result if manifest else None
        checkpoints = whole_checkpoints(directory / CHECKPOINTS)
        self._is_finished = result is not None
        self._begun = result.steps if result else max((checkpoint.step for checkpoint in checkpoints), default=0)
        self._last = MetricsLine(step=0, steps=0, epoch=0.0)
        self._loss: float | None = None
        self._eval_loss: float | None = None
        # What comes after the checkpoint is noted again: the run cuts it off before it goes on.
        self._tail = MetricsTail(directory / METRICS).skip()
        for line in read_metrics(directory / METRICS):
            if line.step <= self._begun:
                self._keep_latest(line)
        self._recent = self._rates_from(self._last)
        self._lock = threading.Lock()

    def snapshot(self) -> TrainingSnapshot:
        """Return the run as it is now; rates are those of the last minute that was spent in training."""
        with self._lock:
            for line in self._tail.news():
                if line.step > self._begun:
                    self._add_line(line)
            last = self._last
            steps_per_s, tokens_per_s = self._recent.rates(last.seconds, last.step, last.tokens)
            return TrainingSnapshot(
                done=last.step,
                total=last.steps or None,
                is_loading=last.step <= self._begun and not self._is_finished,
                epoch=last.epoch,
                loss=self._loss,
                eval_loss=self._eval_loss,
                tokens_per_s=tokens_per_s,
                eta_s=(last.steps - last.step) / steps_per_s if steps_per_s > 0 else None,
            )

    def _add_line(self, line: MetricsLine) -> None:
        if line.step < self._last.step:  # another worker goes on from an earlier checkpoint
            self._recent = self._rates_from(line)
        self._keep_latest(line)
        self._recent.mark(line.seconds, line.step, line.tokens)

    def _keep_latest(self, line: MetricsLine) -> None:
        self._last = line
        self._loss = self._loss if line.loss is None else line.loss
        self._eval_loss = self._eval_loss if line.eval_loss is None else line.eval_loss

    @staticmethod
    def _rates_from(line: MetricsLine) -> RateMeter:
        return RateMeter(line.seconds, line.step, line.tokens)
