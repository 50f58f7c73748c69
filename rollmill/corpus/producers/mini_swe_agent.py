"""Trajectories of mini-swe-agent (`.traj.json`), of versions 1 and 2."""

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
    find_verdict,
    first_text,
    make_failure,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("mini-swe-agent", "MiniSweAgent", "trajectories (.traj.json) of versions 1 and 2")

_FORMAT = "mini-swe-agent"
_FAILURE_FIELDS = ("traceback", "exception_str")


class MiniSweAgent:
    """Reads `{"info", "messages", "trajectory_format"}`; before version 1.4 the format is not named."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a document names the format, or has its `info` beside messages."""
        if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
            return False
        if str(document.get("trajectory_format")).startswith(_FORMAT):
            return True
        info = document.get("info")
        return isinstance(info, dict) and "exit_status" in info and "submission" in info

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout; an exception outside of the agent is an error, a limit that it reached is not."""
        info = as_dict(document.get("info"))
        status = as_text(info.get("exit_status"))
        has_failed = any(info.get(name) for name in _FAILURE_FIELDS)
        model = as_dict(as_dict(info.get("config")).get("model")).get("model_name")
        yield {
            "instance_id": first_text(document, ("instance_id",)) or origin.generated_id,
            "sample_id": document.get("sample_id"),
            "messages": _messages(document["messages"]),
            "exit_status": status,
            "git_diff": as_text(info.get("submission")),
            "model_calls": as_whole_number(as_dict(info.get("model_stats")).get("api_calls")),
            "error": make_failure(status, info.get("exception_str")) if has_failed else None,
            "metadata": {"model": model} if as_text(model) else None,
            **find_verdict(document, info),
        }


def _messages(recorded: Any) -> Chat:
    """Return the messages; version 2 keeps answers of OpenAI's Responses as they are: they become their items."""
    messages: Chat = []
    for message in as_dicts(recorded):
        if message.get("object") == "response":
            ends = {name: message[name] for name in ("status", "incomplete_details") if message.get(name)}
            items = as_dicts(message.get("output"))
            messages += [*items[:-1], *({**item, **_if_incomplete(ends)} for item in items[-1:])]
        else:
            messages.append(message)
    return messages


def _if_incomplete(ends: Row) -> Row:
    """Return the fields of an answer's end, if it was cut off."""
    return ends if ends.get("status") == "incomplete" else {}
