"""Progress of a training run, read from its files: the process that trains may be on another machine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from rollmill.jobs.training.checkpoints import CHECKPOINTS, complete_checkpoints
from rollmill.jobs.training.manifest import read_training_manifest
from rollmill.jobs.training.metrics import METRICS, MetricsLine, MetricsTail, read_metrics
from rollmill.statistics.throughput import RateMeter, format_seconds


class TrainingSnapshot(NamedTuple):
    """Progress of a run at one moment."""

    done: int
    """Optimizer steps."""
    total: int | None
    """Optimizer steps of the run; None before its first step."""
    is_loading: bool
    """No step was made since the run began or was resumed."""
    epoch: float
    loss: float | None
    """Loss of the last step."""
    eval_loss: float | None
    """Loss of the last evaluation."""
    tokens_per_s: float
    eta_s: float | None
    """Seconds to the end at the present rate; None while there is no rate."""

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
    """Reads progress from `metrics.jsonl` of a run's directory, from its last checkpoint on, where it will resume.

    Raises `InputError` where the directory is another kind of run's.
    """

    def __init__(self, directory: Path) -> None:
        manifest = read_training_manifest(directory)
        result = manifest.result if manifest else None
        checkpoints = complete_checkpoints(directory / CHECKPOINTS)
        self._is_finished = result is not None
        self._begun = result.steps if result else max((checkpoint.step for checkpoint in checkpoints), default=0)
        self._last = MetricsLine(step=0, steps=0, epoch=0.0)
        self._loss: float | None = None
        self._eval_loss: float | None = None
        # Lines after the checkpoint will be written again: the run cuts them off before it resumes.
        self._tail = MetricsTail(directory / METRICS).skip_existing()
        for line in read_metrics(directory / METRICS):
            if line.step <= self._begun:
                self._keep_latest(line)
        self._recent = self._rates_from(self._last)
        self._lock = threading.Lock()

    def snapshot(self) -> TrainingSnapshot:
        """Return the progress now; rates are those of the last minute of training time."""
        with self._lock:
            for line in self._tail.read_new():
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
        if line.step < self._last.step:  # another worker resumed from an earlier checkpoint
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
