"""The model card: what was trained, on what, how, and how it went."""

from __future__ import annotations

import json
from pathlib import Path

from rollmill.jobs.training.manifest import TrainingManifest
from rollmill.jobs.training.prepared import PreparedRows
from rollmill.terminal.markdown import markdown_code, markdown_table, plain_markdown

_ELSEWHERE = frozenset({"model_path", "train_data", "validation_data", "output_dir", "merge"})


def model_card(manifest: TrainingManifest, prepared: PreparedRows) -> str:
    """README.md of a finished run: front matter that the hub reads, and text."""
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
        markdown_table(("side", "rows", "problems", "tokens", "learnt tokens", "longest row"), counts),
    ]
    if prepared.model_length is not None:
        most = manifest.parameters["max_length"]
        parts.append(f"The model takes {prepared.model_length:,} tokens, fewer than --max_length {most}.")
    if prepared.dropped:
        dropped = ", ".join(f"{count:,} {plain_markdown(reason)}" for reason, count in prepared.dropped.items())
        parts.append(f"Rows left out, each in `dropped.jsonl`: {dropped}.")
    return "\n\n".join(parts)


def _hyperparameters(manifest: TrainingManifest) -> list[tuple[str, object]]:
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else value)
        for name, value in manifest.parameters.items()
        if name not in _ELSEWHERE and value is not None
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
