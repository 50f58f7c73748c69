"""Writes and reads `metrics.jsonl`: one line for each optimizer step and each evaluation, as they come."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rollmill.files.atomic import atomic_write_bytes

METRICS = "metrics.jsonl"


class MetricsLine(BaseModel):
    """One line of metrics. A step has a `loss`, an evaluation an `eval_loss`."""

    model_config = ConfigDict(frozen=True)

    step: int
    steps: int
    """Steps of the run, if it is not stopped early."""
    epoch: float
    loss: float | None = None
    """Mean over the tokens that carry the loss, of the step's rows, in nats."""
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int = 0
    """Tokens seen so far, without padding."""
    tokens_per_s: float | None = None
    """Tokens of this step, by its seconds."""
    seconds: float = 0.0
    """Training time so far, without interruptions."""
    peak_memory_mb: float | None = None
    """Peak of the GPU's memory; on a CPU peak resident memory of the process."""

    def line(self) -> bytes:
        """Return one line of the file, newline included."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"


def read_metrics(path: Path) -> list[MetricsLine]:
    """Return all complete lines of the file; none where there is no file."""
    return MetricsTail(path).read_new()


def cut_metrics(path: Path, step: int) -> None:
    """Remove the lines after a step: the run resumes there, and writes those steps again."""
    if path.exists():
        atomic_write_bytes(path, b"".join(entry.line() for entry in read_metrics(path) if entry.step <= step))


class MetricsTail:
    """Reads the lines that another process appends to a file of metrics."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode: int | None = None

    def skip_existing(self) -> MetricsTail:
        """Skip the lines that the file has already."""
        self.read_new()
        return self

    def read_new(self) -> list[MetricsLine]:
        """Return the complete lines that were not read before; all lines where the file was replaced."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            file.seek(self._offset)
            # What follows the last newline is still being written.
            complete, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        lines = []
        for line in complete.splitlines():
            try:
                lines.append(MetricsLine.model_validate_json(line))
            except ValidationError:  # torn by a crash of the machine
                continue
        return lines
