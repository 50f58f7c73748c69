"""Pairing of tool calls with their results, and the calls and results that have no counterpart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import decode, is_absent
from rollmill.corpus.tool_calls import call_ids


class OpenCalls(NamedTuple):
    """Numbers of tool calls and results of a conversation that have no counterpart."""

    unanswered: int
    """Calls without a result, those of the last turn included."""
    stray: int
    """Results that answer no call."""


def count_open_calls(turns: list[Message]) -> OpenCalls:
    """Count calls and results without counterpart in normalized messages.

    Calls and results pair by id; those without one in the order of their turns.
    """
    pairing = CallPairing()
    for turn in turns:
        if turn.role == "assistant" and len(turn.tool_calls):
            pairing.add_calls(call_ids(turn.tool_calls))
        elif turn.role == "tool":
            pairing.add_result(turn.tool_call_id)
    return pairing.open_calls()


class CallPairing:
    """Pairs calls with their results, added in the order of their turns."""

    def __init__(self) -> None:
        self._pending: list[Any] = []
        self._stray = 0

    def add_calls(self, ids: Iterable[Any]) -> None:
        """Add the calls of a turn by their ids, None for a call without one."""
        self._pending += ids

    def add_result(self, tool_call_id: msgspec.Raw) -> None:
        """Add a result, which answers the first pending call that it matches."""
        answered_id = None if is_absent(tool_call_id) else decode(tool_call_id)
        for index, call_id in enumerate(self._pending):
            # A result without an id answers the first call, a call without one takes the first result.
            if answered_id is None or call_id is None or call_id == answered_id:
                del self._pending[index]
                return
        self._stray += 1

    def open_calls(self) -> OpenCalls:
        """Return the numbers of calls and results without counterpart so far."""
        return OpenCalls(len(self._pending), self._stray)
