"""`metrics.jsonl`: one line for each optimizer step and each evaluation, written as they come."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rollmill.files.atomic import atomic_write_bytes

METRICS = "metrics.jsonl"


class MetricsLine(BaseModel):
    """One line. A step has a `loss`, an evaluation an `eval_loss`."""

    model_config = ConfigDict(frozen=True)

    step: int
    steps: int
    """Of the whole run, if it is not stopped early."""
    epoch: float
    loss: float | None = None
    """Mean over the learnt tokens of the step's rows, in nats."""
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int = 0
    """Seen so far, padding not counted."""
    tokens_per_s: float | None = None
    """Of this step."""
    seconds: float = 0.0
    """Spent in training so far, interruptions not counted."""
    peak_memory_mb: float | None = None
    """Of the GPU's memory; on a CPU the greatest resident memory of the process."""

    def line(self) -> bytes:
        """Return one line of the file, newline included."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"


def read_metrics(path: Path) -> list[MetricsLine]:
    """Return all whole lines of the file; none where there is no file."""
    return MetricsTail(path).news()


def cut_metrics(path: Path, step: int) -> None:
    """Leave out what came after a step: the run goes on from there, and notes those steps again."""
    if path.exists():
        atomic_write_bytes(path, b"".join(entry.line() for entry in read_metrics(path) if entry.step <= step))


class MetricsTail:
    """Reads a file that another process is writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._file: int | None = None

    def skip(self) -> MetricsTail:
        """Leave out what is there already."""
        self.news()
        return self

    def news(self) -> list[MetricsLine]:
        """Return the lines that are whole by now and were not read before; all, where the file was written anew."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            number = os.fstat(file.fileno()).st_ino
            if number != self._file:
                self._file, self._offset = number, 0
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        lines = []
        for line in whole.splitlines():
            try:
                lines.append(MetricsLine.model_validate_json(line))
            except ValidationError:  # torn by a crash of the machine
                continue
        return lines
