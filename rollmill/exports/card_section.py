"""The section of a dataset card about one export, and the configuration that lets `datasets` load it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rollmill.exports.export_result import Exported, Form
from rollmill.exports.output_files import parse_output_name
from rollmill.exports.splitting import TRAIN
from rollmill.terminal.markdown import markdown_table, plain_markdown

_MOST_SOURCES = 20

_CONTEXT_COLUMNS = " `tools`, `chat_template_kwargs`: those of the requests, where they are known."
_COLUMNS: dict[Form, str] = {
    "messages": "`messages`: a conversation that ends with the assistant, for supervised fine-tuning."
    + _CONTEXT_COLUMNS,
    "prompt_completion": "`prompt`: all messages before the first assistant turn that is trained on; `completion`: the "
    "rest. TRL's conversational prompt-completion format." + _CONTEXT_COLUMNS,
    "preferences": "`prompt`, `chosen`, `rejected`: messages, in TRL's conversational preference format."
    + _CONTEXT_COLUMNS,
    "trajectories": "`trajectory`: all messages as recorded, beside `problem_statement`, `tools`, "
    "`chat_template_kwargs`, `git_diff`, `exit_status`, "
    "`reward`, `speedup`, `success`, `model_calls`.",
}
_METADATA: dict[Form, str] = {
    "messages": "which rollout it is, its `reward` and `success`, and where it came from.",
    "prompt_completion": "which rollout it is, its `reward` and `success`, and where it came from.",
    "preferences": "the problem, both rollouts and their rewards, the `margin` between them, and where they came from.",
    "trajectories": "as recorded.",
}


class Provenance(NamedTuple):
    """The facts of a card beside the export's own counts: sources, models, filters."""

    sources: Sequence[str]
    models: Sequence[str]
    origin: Mapping[str, Any]
    filters: Sequence[str]
    filtered: Mapping[str, int]
    """Rollouts by the reason for which they were filtered before the export."""
    read: int
    quarantined: int


def make_config(exported: Exported) -> dict[str, Any]:
    """Return the export's entry for `datasets`: `name`, `files` by split, `field` where rows are under a key."""
    first = exported.files[TRAIN]
    rows_under = {"field": "trajectories"} if parse_output_name(first).layout == ".json" else {}
    files = {split: path.name for split, path in exported.files.items() if exported.rows[split]}
    return {"name": parse_output_name(first).stem, "files": files, **rows_under}


def render_section(exported: Exported, provenance: Provenance) -> str:
    """Return the section as Markdown."""
    name = parse_output_name(exported.files[TRAIN]).stem
    written = f"Written by rollmill {importlib.metadata.version('rollmill')} on {datetime.now(UTC):%Y-%m-%d}."
    parts = [
        f"## {plain_markdown(name)}",
        f"{written} Format `{exported.form}`.",
        markdown_table(("split", "file", "rows", "problems"), _splits(exported)),
        f"Columns: {_COLUMNS[exported.form]} `metadata`: {_METADATA[exported.form]}",
        f"### Where it came from\n\n{_bullets(_origins(provenance))}",
        f"### Filters\n\n{_bullets(map(plain_markdown, provenance.filters)) or 'None.'}",
        *([f"### Notes\n\n{_bullets(map(plain_markdown, exported.notes))}"] if exported.notes else []),
        f"### Counts\n\n{markdown_table(('rollouts', 'count'), _counts(exported, provenance))}",
    ]
    return "\n\n".join(parts)


def _splits(exported: Exported) -> list[tuple[object, ...]]:
    return [
        (split, path.name, f"{exported.rows[split]:,}", f"{exported.problems[split]:,}")
        for split, path in exported.files.items()
    ]


def _origins(provenance: Provenance) -> list[str]:
    sources = [f"source: {plain_markdown(source)}" for source in provenance.sources[:_MOST_SOURCES]]
    if len(provenance.sources) > _MOST_SOURCES:
        sources.append(f"and {len(provenance.sources) - _MOST_SOURCES:,} more sources")
    models = [f"model: {plain_markdown(model)}" for model in provenance.models]
    facts = [
        f"{plain_markdown(key)}: {plain_markdown(value)}"
        for key, value in provenance.origin.items()
        if key not in {"model", "models"}
    ]
    return [*sources, *models, *facts]


def _counts(exported: Exported, provenance: Provenance) -> list[tuple[object, ...]]:
    """Return the rows of the table of counts: the first, of rollouts read, is the sum of those below but the last."""
    filtered = [(f"filtered: {reason}", f"{count:,}") for reason, count in provenance.filtered.items() if count]
    dropped = [(f"dropped: {reason}", f"{count:,}") for reason, count in exported.reasons.items()]
    kept = ("kept", f"{exported.kept:,}")
    aside = ("quarantined (rows that could not be read, not counted above)", f"{provenance.quarantined:,}")
    return [("read", f"{provenance.read:,}"), *filtered, *dropped, kept, aside]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
