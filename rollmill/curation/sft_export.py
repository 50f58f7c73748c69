"""SFT export: accepted completions as training rows, one JSON object with `messages` and `metadata` per line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from rollmill.curation.ranking import closeness, rollout_error
from rollmill.files.rows import Row, dump_line
from rollmill.files.whole import write_whole
from rollmill.records import Message, Problem, Rollout

Keep = Literal["all", "best"]


class ExportCounts(BaseModel):
    """What an export did with every rollout it read: `kept` + all of `dropped` = `read`."""

    model_config = ConfigDict(frozen=True)

    read: int
    kept: int
    dropped: dict[str, int]
    """Rollouts by the first reason that kept them out, most frequent first."""
    problems: int
    """Problems with at least one row kept."""

    @model_validator(mode="after")
    def _adds_up(self) -> ExportCounts:
        if self.read != self.kept + sum(self.dropped.values()):
            raise RuntimeError(f"rows lost in the export, a bug in rollmill: {self.model_dump()}")
        return self


def export_sft(
    path: Path,
    groups: Iterable[tuple[Problem, list[Rollout | None]]],
    *,
    model: str,
    run: dict[str, Any],
    keep: Keep = "all",
    at_most: int | None = None,
) -> ExportCounts:
    """Writes the accepted completions whole, in the order of `groups` and, within a problem, of samples.

    `run` says where rows come from (identity, verifier, sampling, ...) and goes into every row's metadata.
    `keep="best"` writes one row per problem, `at_most` the best k: least error, then highest reward, then lowest
    sample id. Of equal completions to one problem the first is kept. Missing rollouts are not rows and not read.
    """
    limit = 1 if keep == "best" else at_most
    read = kept = problems = 0
    dropped: Counter[str] = Counter()
    with write_whole(path) as file:
        for _, rollouts in groups:
            present = [rollout for rollout in rollouts if rollout]
            chosen, reasons = choose(present, limit, "not_best" if keep == "best" else "over_limit")
            dropped.update(reasons)
            file.writelines(dump_line(sft_row(rollout, {"model": model, **run})) for rollout in chosen)
            read, kept, problems = read + len(present), kept + len(chosen), problems + bool(chosen)
    counted = {reason: count for reason, count in dropped.most_common() if count}
    return ExportCounts(read=read, kept=kept, dropped=counted, problems=problems)


def choose(rollouts: Sequence[Rollout], limit: int | None, over: str) -> tuple[list[Rollout], Counter[str]]:
    """The rollouts of one problem to train on, in sample order, and how many are left out for which reason."""
    reasons: Counter[str] = Counter()
    accepted: dict[str, Rollout] = {}
    for rollout in rollouts:
        reason = drop_reason(rollout)
        if reason is None and rollout.completion in accepted:
            reason = "duplicate_completion"
        if reason is None:
            accepted[rollout.completion or ""] = rollout
        else:
            reasons[reason] += 1
    chosen = sorted(accepted.values(), key=closeness)[:limit]
    reasons[over] += len(accepted) - len(chosen)
    return sorted(chosen, key=lambda rollout: rollout.sample_id), reasons


def drop_reason(rollout: Rollout) -> str | None:
    """Why a rollout is no training row by itself; None where it is one."""
    if rollout.status != "ok":
        return rollout.status
    if rollout.success is not True:
        return "not_accepted"
    if not rollout.completion or not rollout.completion.strip():
        return "empty_completion"
    return None


def sft_row(rollout: Rollout, metadata: dict[str, Any]) -> Row:
    """One training row. Image parts keep their paths in `messages`, and are listed in order under `images`."""
    row: Row = {
        "messages": [*rollout.messages, {"role": "assistant", "content": rollout.completion}],
        "metadata": {
            "instance_id": rollout.instance_id,
            "sample_id": rollout.sample_id,
            "seed": rollout.seed,
            "reward": rollout.reward,
            "error": rollout_error(rollout),
            "verifier": rollout.verdict.verifier if rollout.verdict else None,
            **metadata,
        },
    }
    images = [path for message in rollout.messages for path in _image_paths(message)]
    return {**row, "images": images} if images else row


def _image_paths(message: Message) -> list[str]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [str(part["image"]) for part in parts if part.get("type") == "image"]
