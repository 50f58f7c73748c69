"""Writes the results of a finished run: the best checkpoint's weights, the loss plot and the model card."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from rollmill.files.atomic import atomic_write_bytes
from rollmill.jobs.training.checkpoints import checkpoint_path
from rollmill.jobs.training.manifest import TrainingManifest
from rollmill.jobs.training.metrics import MetricsLine
from rollmill.jobs.training.prepared import DROPPED, PreparedRows
from rollmill.jobs.training.recorded_rows import recorded_line
from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG
from rollmill.jobs.training.work import CONFIG, TrainingWork
from rollmill.reports.plots.loss_curve import draw_loss_curve
from rollmill.terminal.markdown import markdown_code, markdown_table, plain_markdown

CARD = "README.md"
LOSS = "loss.png"
_TRAINER_FILES = ("optimizer", "scheduler", "rng_state", "scaler", "trainer_state", "complete", CARD)
"""Prefixes of a checkpoint's files that are the trainer's own, for resuming."""
_DECIDED = ("gradient_checkpointing", "load_in_4bit")
"""Parameters that are decided where they are not given; see `MemoryPlan`."""
_SHOWN_ELSEWHERE = frozenset({"model_path", "train_data", "validation_data", "output_dir", "merge"})
"""Parameters that the card leaves out of its table: it names them elsewhere."""


def publish(work: TrainingWork, step: int) -> None:
    """Copy weights, tokenizer and the base's configuration into the run's directory, each file atomically."""
    for path in sorted(checkpoint_path(work.checkpoints, step).iterdir()):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(_TRAINER_FILES):
            _copy_atomically(path, work.directory / path.name)
    for name in (CONFIG, DROPPED, GENERATION_CONFIG) if work.parameters.use_lora else (DROPPED, GENERATION_CONFIG):
        if (work.folder / name).exists():
            _copy_atomically(work.folder / name, work.directory / name)


def write_card_and_plot(
    manifest: TrainingManifest, prepared: PreparedRows, metrics: list[MetricsLine], directory: Path
) -> None:
    """Write the loss plot and the model card.

    Args:
        manifest: The finished run's manifest.
        prepared: Counts of the rows.
        metrics: All lines of `metrics.jsonl`.
        directory: The run's directory.
    """
    result = manifest.result
    assert result is not None
    best = result.best_step if result.eval_loss is not None else None
    atomic_write_bytes(directory / LOSS, draw_loss_curve(metrics, title=f"Training {directory.name}", best_step=best))
    atomic_write_bytes(directory / CARD, _model_card(manifest, prepared).encode())


def _copy_atomically(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _model_card(manifest: TrainingManifest, prepared: PreparedRows) -> str:
    """Return README.md of a finished run: front matter for the hub, then model, data, hyperparameters and result."""
    result = manifest.result
    assert result is not None
    is_local = Path(manifest.base).is_absolute()
    front = [
        *([] if is_local else [f"base_model: {json.dumps(manifest.base)}"]),
        *(["library_name: peft"] if result.adapter else ["library_name: transformers"]),
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in ("sft", "trl", *(["lora"] if result.adapter else []))),
    ]
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {plain_markdown(result.directory.name)}",
        f"{'A LoRA adapter for' if result.adapter else 'All weights trained from'} "
        f"{markdown_code(Path(manifest.base).name)}, made by rollmill on {(manifest.ended_at or '')[:10]}. "
        "The loss was on the assistant's turns only.",
        f"Base: {plain_markdown(manifest.base)} ({plain_markdown(manifest.identity.generation['model_path'])})",
        "## Data\n\n" + _data(manifest, prepared),
        "## Hyperparameters\n\n" + markdown_table(("parameter", "value"), _hyperparameters(manifest)),
        "## Result\n\n" + markdown_table(("", ""), _result(manifest)) + "\n\n![Loss](loss.png)",
        "## Made with\n\n" + ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _data(manifest: TrainingManifest, prepared: PreparedRows) -> str:
    files = [
        (side, file["path"], file["sha256"]) for side in ("train", "validation") for file in manifest.data.get(side, [])
    ]
    counts = [
        (
            name,
            f"{side.rows:,}",
            f"{side.problems:,}",
            f"{side.tokens:,}",
            f"{side.learnt_tokens:,}",
            f"{side.longest:,}",
        )
        for name, side in (("train", prepared.train), ("validation", prepared.validation))
        if side.rows
    ]
    parts = [
        markdown_table(("side", "file", "SHA-256 of the content"), files),
        markdown_table(("side", "rows", "problems", "tokens", "tokens with loss", "longest row"), counts),
    ]
    if prepared.model_length is not None:
        most = manifest.parameters["max_length"]
        parts.append(f"The model takes {prepared.model_length:,} tokens, fewer than --max_length {most}.")
    if prepared.dropped:
        dropped = ", ".join(f"{count:,} {plain_markdown(reason)}" for reason, count in prepared.dropped.items())
        parts.append(f"Rows left out, each in `dropped.jsonl`: {dropped}.")
    if prepared.turns_left_out:
        turns = ", ".join(f"{count:,} {plain_markdown(reason)}" for reason, count in prepared.turns_left_out.items())
        parts.append(f"Turns left out of rows that are used, each in `dropped.jsonl`: {turns}.")
    if line := recorded_line(prepared.recorded_rows, prepared.encoded_anew):
        parts.append(f"{line[0].upper()}{line[1:]}.")
    if prepared.stops_added:
        stops = ", ".join(markdown_code(token) for token in prepared.stops_added)
        parts.append(f"Stop tokens that `generation_config.json` here has, and the base's has not: {stops}.")
    return "\n\n".join(parts)


def _hyperparameters(manifest: TrainingManifest) -> list[tuple[str, object]]:
    # What was not asked for may have been decided by the GPU's memory.
    decided = {name: value for name, value in (manifest.device or {}).items() if name in _DECIDED}
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else value)
        for name, value in (manifest.parameters | decided).items()
        if name not in _SHOWN_ELSEWHERE and value is not None
    ]


def _result(manifest: TrainingManifest) -> list[tuple[str, object]]:
    result = manifest.result
    assert result is not None
    evaluated = [] if result.eval_loss is None else [("loss in evaluation", f"{result.eval_loss:.4f}")]
    return [
        ("optimizer steps", f"{result.steps:,}"),
        ("weights of step", f"{result.best_step:,}"),
        ("epochs", f"{result.epochs:g}"),
        ("mean loss in training", f"{result.train_loss:.4f}"),
        *evaluated,
        ("tokens seen", f"{result.tokens:,}"),
        ("seconds", f"{result.seconds:,.0f}"),
    ]
