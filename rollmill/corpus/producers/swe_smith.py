"""Rows with `resolved` as their verdict, as the trajectories of SWE-smith have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import as_chat, as_dict, find_verdict, first_text, parse_json_text
from rollmill.corpus.producers.swe_agent import history_messages
from rollmill.files.rows import Row

ENTRY = ProducerEntry("swe-smith", "SweSmith", "rows with `resolved`, messages as JSON text or not")

_CONVERSATIONS = ("messages", "trajectory")


class SweSmith:
    """Reads `{"messages", "instance_id", "resolved", "traj_id", ...}`."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a row has messages and `resolved`, or Nebius's `target`, as its only verdict."""
        if not isinstance(document, dict) or document.get("reward") is not None or document.get("success") is not None:
            return False
        has_turns = any(isinstance(parse_json_text(document.get(name)), list) for name in _CONVERSATIONS)
        return has_turns and ("resolved" in document or {"target", "generated_patch"} <= document.keys())

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout."""
        turns = next(value for name in _CONVERSATIONS if isinstance(value := parse_json_text(document.get(name)), list))
        known = {key: value for key, value in document.items() if key not in (*_CONVERSATIONS, "resolved", "patch")}
        names = ("instance_id", "problem_id", "task_id")
        more = {name: document[name] for name in ("traj_id", "model") if document.get(name) is not None}
        yield known | {
            "instance_id": first_text(document, names) or origin.generated_id,
            "messages": history_messages(as_chat(turns)),
            "git_diff": document.get("patch") or document.get("generated_patch"),
            "metadata": as_dict(document.get("metadata")) | more,
            **find_verdict(document, {"resolved": document.get("target")}),
        }
