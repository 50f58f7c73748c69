"""What a finished run leaves: the best checkpoint's weights, and what explains them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rollmill.files.atomic import atomic_write_bytes
from rollmill.jobs.training.checkpoints import checkpoint_path
from rollmill.jobs.training.manifest import TrainingManifest
from rollmill.jobs.training.metrics import MetricsLine
from rollmill.jobs.training.model_card import model_card
from rollmill.jobs.training.prepared import DROPPED, PreparedRows
from rollmill.jobs.training.work import CONFIG, TrainingWork
from rollmill.reports.plots.loss_curve import draw_loss_curve

CARD = "README.md"
LOSS = "loss.png"
_OF_THE_TRAINER = ("optimizer", "scheduler", "rng_state", "scaler", "trainer_state", "complete", CARD)


def publish(work: TrainingWork, step: int) -> None:
    """Copies the weights, the tokenizer, and the base's configuration into the run's directory, each file whole."""
    for path in sorted(checkpoint_path(work.checkpoints, step).iterdir()):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(_OF_THE_TRAINER):
            _copy_whole(path, work.directory / path.name)
    for name in (CONFIG, DROPPED) if work.parameters.use_lora else (DROPPED,):
        if (work.folder / name).exists():
            _copy_whole(work.folder / name, work.directory / name)


def explain(manifest: TrainingManifest, prepared: PreparedRows, metrics: list[MetricsLine], directory: Path) -> None:
    """Writes the loss plot and the model card."""
    result = manifest.result
    assert result is not None
    best = result.best_step if result.eval_loss is not None else None
    atomic_write_bytes(directory / LOSS, draw_loss_curve(metrics, title=f"Training {directory.name}", best_step=best))
    atomic_write_bytes(directory / CARD, model_card(manifest, prepared).encode())


def _copy_whole(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
