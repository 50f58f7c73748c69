"""Tool calls of training rows: their arguments as objects or JSON text, and notes on those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rollmill.corpus.call_pairing import CallPairing
from rollmill.corpus.json_repair import has_lone_surrogate, repair
from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import NOTHING
from rollmill.corpus.tool_calls import Call, PlainCall, call_ids, decode_plain_calls, normalize_calls
from rollmill.exports.row_format import Arguments


class CallNotes:
    """Writes the tool calls of an export in one form, and counts what its user should know about them.

    Args:
        arguments: form of the arguments.
    """

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self.as_text = 0
        """Number of calls whose arguments are no JSON object, and stay text."""
        self.unanswered = 0
        self.stray = 0

    def take(self, turns: list[Message]) -> list[Message]:
        """Return a conversation with the arguments of its calls in the export's form, and count the exceptions."""
        if not any(len(turn.tool_calls) or turn.role == "tool" for turn in turns):
            return turns
        pairing = CallPairing()
        written = [self._written(turn, pairing) for turn in turns]
        unanswered, stray = pairing.open_calls()
        self.unanswered += unanswered
        self.stray += stray
        return written

    def lines(self) -> list[str]:
        """Return the notes for the user."""
        counted = {
            "tool calls have arguments that are no JSON object: they stay text": self.as_text,
            "tool calls have no result (the last turn's own among them)": self.unanswered,
            "results answer no tool call": self.stray,
        }
        return [f"{count:,} {words}" for words, count in counted.items() if count]

    def _written(self, turn: Message, pairing: CallPairing) -> Message:
        """Return a turn with its calls in the export's form; pair its calls and results."""
        if len(turn.tool_calls) == 0:
            if turn.role == "tool":
                pairing.add_result(turn.tool_call_id)
            return turn
        plain = decode_plain_calls(turn.tool_calls)
        if turn.role == "assistant":
            pairing.add_calls(call_ids(turn.tool_calls) if plain is None else [call.id for call in plain])
        elif turn.role == "tool":
            pairing.add_result(turn.tool_call_id)
        calls: Sequence[Call | PlainCall] = normalize_calls(turn.tool_calls) if plain is None else plain
        for call in calls:
            call.function.arguments = self._arguments_of(call.function.arguments)
        return msgspec.structs.replace(turn, tool_calls=self._encoded(calls) if calls else NOTHING)

    def _arguments_of(self, arguments: msgspec.Raw) -> msgspec.Raw:
        if len(arguments) == 0:
            return arguments
        if memoryview(arguments)[0] != _QUOTE:
            as_text = self._arguments == "text"
            return msgspec.Raw(msgspec.json.encode(bytes(arguments).decode())) if as_text else arguments
        parsed = _parse_object(msgspec.json.decode(arguments))
        if parsed is None:
            self.as_text += 1
        return arguments if parsed is None or self._arguments == "text" else parsed

    def _encoded(self, calls: Sequence[Call | PlainCall]) -> msgspec.Raw:
        named = [call.to_json(self._arguments) if isinstance(call, Call) else call for call in calls]
        return msgspec.Raw(msgspec.json.encode(named))


_QUOTE = 0x22


def _parse_object(text: str) -> msgspec.Raw | None:
    """Return the object that JSON text contains, values spelt as before; None where it contains none."""
    line = text.strip().encode("utf-8", "replace")
    line = (repair(line) or line) if has_lone_surrogate(line) else line
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        return msgspec.Raw(msgspec.json.format(line, indent=-1) if b"\n" in line else line)
    except (msgspec.DecodeError, RecursionError):
        return None
