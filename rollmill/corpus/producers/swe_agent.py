"""Trajectories of SWE-agent (`.traj`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    as_dict,
    as_dicts,
    as_text,
    as_whole_number,
    exclude_from_training,
    find_verdict,
    first_text,
    make_failure,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("swe-agent", "SweAgent", "trajectories (.traj)")

_FAILURE_STATUSES = ("exit_error", "exit_environment_error", "exit_api")
"""Parts of exit statuses of runs that failed outside of the agent."""
_BOOKKEEPING = frozenset(
    {"agent", "message_type", "thought", "action", "tool_call_ids", "tags", "cache_control", "is_demo"}
)


class SweAgent:
    """Reads `{"trajectory", "history", "info"}`."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a document has the steps of its trajectory, or its history, beside the facts of the run."""
        if not isinstance(document, dict) or not isinstance(document.get("info"), dict):
            return False
        steps = document.get("trajectory")
        if not isinstance(steps, list):
            return False
        return all(isinstance(step, dict) and "action" in step and "role" not in step for step in steps[:1]) and (
            bool(steps) or isinstance(document.get("history"), list)
        )

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout, with the messages of its history."""
        info = as_dict(document.get("info"))
        status = as_text(info.get("exit_status"))
        has_failed = status is not None and any(word in status for word in _FAILURE_STATUSES)
        yield {
            "instance_id": first_text(document, ("instance_id",)) or origin.generated_id,
            "messages": history_messages(document.get("history")) or _messages_of_steps(document["trajectory"]),
            "exit_status": status,
            "git_diff": as_text(info.get("submission")),
            "model_calls": as_whole_number(as_dict(info.get("model_stats")).get("api_calls")),
            "error": make_failure(status, None) if has_failed else None,
            **find_verdict(document, info),
        }


def history_messages(history: Any) -> Chat:
    """Return the messages of a history: demonstrations are not trained on, a result names its one call."""
    return [_message(message) for message in as_dicts(history)]


def _message(recorded: Row) -> Row:
    message = {key: value for key, value in recorded.items() if key not in _BOOKKEEPING and value is not None}
    ids = recorded.get("tool_call_ids")
    if recorded.get("role") == "tool" and isinstance(ids, list) and ids and "tool_call_id" not in message:
        message["tool_call_id"] = ids[0]
    return exclude_from_training(message) if recorded.get("is_demo") is True else message


def _messages_of_steps(trajectory: Any) -> Chat:
    """Return the messages of a trajectory without a history.

    That is the last request with its answer, where it is recorded; else the answers and observations, step by step.
    """
    steps = as_dicts(trajectory)
    last = steps[-1] if steps else {}
    query = history_messages(last.get("query"))
    if query and query[-1].get("role") != "assistant":
        answer = {"role": "assistant", "content": last.get("response"), "tool_calls": last.get("tool_calls")}
        return [*query, answer]
    if messages := history_messages(last.get("messages")):
        return messages
    messages = []
    for step in steps:
        messages.append({"role": "assistant", "content": step.get("response") or step.get("thought")})
        messages.append({"role": "user", "content": step.get("observation")})
    return messages
