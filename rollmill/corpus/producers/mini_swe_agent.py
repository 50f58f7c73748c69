"""Trajectories of mini-swe-agent (`.traj.json`), of versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import Chat, failure, fields, first_text, objects, text, verdict, whole
from rollmill.files.rows import Row

ENTRY = ProducerEntry("mini-swe-agent", "MiniSweAgent", "trajectories (.traj.json) of versions 1 and 2")

_FORMAT = "mini-swe-agent"
_OF_A_FAILURE = ("traceback", "exception_str")


class MiniSweAgent:
    """Reads `{"info", "messages", "trajectory_format"}`; before version 1.4 the format is not named."""

    def is_one(self, document: Any) -> bool:
        """Return whether a document names the format, or has its `info` beside messages."""
        if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
            return False
        if str(document.get("trajectory_format")).startswith(_FORMAT):
            return True
        info = document.get("info")
        return isinstance(info, dict) and "exit_status" in info and "submission" in info

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout; an exception of the agent's surroundings is an error, a limit that it met is none."""
        info = fields(document.get("info"))
        status = text(info.get("exit_status"))
        broke = any(info.get(name) for name in _OF_A_FAILURE)
        model = fields(fields(info.get("config")).get("model")).get("model_name")
        yield {
            "instance_id": first_text(document, ("instance_id",)) or origin.made_id,
            "sample_id": document.get("sample_id"),
            "messages": _messages(document["messages"]),
            "exit_status": status,
            "git_diff": text(info.get("submission")),
            "model_calls": whole(fields(info.get("model_stats")).get("api_calls")),
            "error": failure(status, info.get("exception_str")) if broke else None,
            "metadata": {"model": model} if text(model) else None,
            **verdict(document, info),
        }


def _messages(recorded: Any) -> Chat:
    """Return the messages; an answer of OpenAI's Responses, which version 2 keeps whole, as its items."""
    messages: Chat = []
    for message in objects(recorded):
        if message.get("object") == "response":
            ends = {name: message[name] for name in ("status", "incomplete_details") if message.get(name)}
            items = objects(message.get("output"))
            messages += [*items[:-1], *({**item, **_cut(ends)} for item in items[-1:])]
        else:
            messages.append(message)
    return messages


def _cut(ends: Row) -> Row:
    return ends if ends.get("status") == "incomplete" else {}
