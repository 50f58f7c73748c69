"""Export of whole trajectories: everything that was recorded, under the keys that trajectory datasets use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from rollmill.corpus.json_repair import contains_bytes
from rollmill.corpus.raw_json import NOTHING, is_absent, parse_raw_text
from rollmill.corpus.record import Record, decode_record
from rollmill.exports.atif import atif_document
from rollmill.exports.export_result import Exported, dropped_table, empty_notes
from rollmill.exports.origins import read_rollouts
from rollmill.exports.output_files import open_output, parse_output_name, write_rows
from rollmill.exports.row_format import TrajectoryFormat
from rollmill.exports.splitting import TRAIN
from rollmill.exports.training_file import DroppedRows, is_unicode, nothing_usable, or_unreadable

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

_NULL = msgspec.Raw(b"null")
_FACTS = ["row", "instance_id", "sample_id", "reward", "speedup", "success", "model_calls"]


class _Recorded(Record):
    """A record whose fields to write are JSON text, unchanged."""

    problem_statement: msgspec.Raw = _NULL
    messages: msgspec.Raw = NOTHING  # type: ignore[assignment]
    trajectory: msgspec.Raw = NOTHING  # type: ignore[assignment]
    prompt: msgspec.Raw = NOTHING  # type: ignore[assignment]
    git_diff: msgspec.Raw = _NULL
    exit_status: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL


_OTHER_NAMES, _NAME_ENDING = (b'"reasoning"', b'"thinking"'), b'ing"'
_decoder = msgspec.json.Decoder(_Recorded)
_items = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_encoder = msgspec.json.Encoder(enc_hook=str)


def export_trajectory(
    path: Path,
    corpus: Corpus,
    kept: pl.DataFrame,
    *,
    format: TrajectoryFormat = "recorded",  # noqa: A002  # the flag's name
    origin: Mapping[str, Any] | None = None,
    allow_empty: bool = True,
) -> Exported:
    """Write each row of `kept` whole, messages as recorded, a separate completion as the last message.

    Only the field of the reasoning is renamed, where it is not `reasoning_content`.

    Keys, null where nothing was recorded: `instance_id`, `sample_id`, `problem_statement`, `tools`,
    `chat_template_kwargs`, `trajectory` (a list), `git_diff`, `exit_status`, `reward`, `speedup`, `success`,
    `model_calls`, `metadata`. Reward, speedup and success are the table's: a success that an evaluation denies is none.
    Dropped are only rows that are no UTF-8 (`not_unicode`) and whose contents cannot be read (`unreadable_content`).
    Raises `InputError` for other names, and where no row is left, unless `allow_empty`.

    Args:
        path: `.json`: `{"metadata": origin, "trajectories": [...]}`; `.jsonl`: one row per line; with `.gz` or `.zst`
            after it, compressed.
        corpus: the rollouts that were read.
        kept: the rows to export, sorted by `row`.
        format: `atif`: each row is a document of the Agent Trajectory Interchange Format (see `atif_document`); `.json`
            of one row is that document, of several a list of them.
        origin: metadata of the document.
        allow_empty: whether a file without any row is written.
    """
    layout = parse_output_name(path).layout
    convert = _atif_line if format == "atif" else _trajectory_line
    opening, closing = _around(layout, format, kept.height, origin or {})
    used: list[int] = []
    problems: set[str] = set()
    dropped: list[tuple[int, str]] = []

    def rows() -> Iterator[bytes]:
        for facts, line in read_rollouts(corpus, kept, _FACTS):
            row = facts.pop("row")
            if not is_unicode(line):
                dropped.append((row, "not_unicode"))
                continue
            text = or_unreadable((row,), partial(convert, facts, line, origin or {}))
            if isinstance(text, DroppedRows):
                dropped.extend(text.reasons)
                continue
            used.append(row)
            problems.add(facts["instance_id"])
            yield text

    with open_output(path) as file:
        file.write(opening)
        write_rows(file, rows(), layout)
        file.write(closing)
        if not used and not allow_empty:
            raise nothing_usable(path, [reason for _, reason in dropped])
    table = dropped_table(kept, used, dropped)
    notes = tuple(empty_notes(kept.join(table, on="row", how="anti")))
    return Exported("trajectories", {TRAIN: path}, {TRAIN: len(used)}, {TRAIN: len(problems)}, len(used), table, notes)


def _around(layout: str, format: TrajectoryFormat, rows: int, origin: Mapping[str, Any]) -> tuple[bytes, bytes]:  # noqa: A002
    """Return the bytes before and after the rows of a file.

    Args:
        layout: `.json` or `.jsonl`.
        format: that of the rows.
        rows: their number.
        origin: metadata of the document.
    """
    if layout != ".json":
        return b"", b""
    if format == "recorded":
        return b'{"metadata": ' + _encoder.encode(dict(origin)) + b',\n"trajectories": [', b"\n]}\n"
    return (b"", b"\n") if rows == 1 else (b"[", b"\n]\n")


def _atif_line(facts: dict[str, Any], line: bytes, origin: Mapping[str, Any]) -> bytes:
    return _encoder.encode(atif_document(facts, decode_record(line), origin))


def _trajectory_line(facts: dict[str, Any], line: bytes, _: Mapping[str, Any]) -> bytes:
    recorded = _decoder.decode(line)
    return _encoder.encode(
        {
            "instance_id": facts["instance_id"],
            "sample_id": facts["sample_id"],
            "problem_statement": recorded.problem_statement,
            "tools": recorded.request_field("tools") or None,
            "chat_template_kwargs": recorded.request_field("chat_template_kwargs") or None,
            "trajectory": _trajectory(recorded, line),
            "git_diff": recorded.git_diff,
            "exit_status": recorded.exit_status,
            "reward": facts["reward"],
            "speedup": facts["speedup"],
            "success": facts["success"],
            "model_calls": facts["model_calls"],
            "metadata": recorded.metadata,
        }
    )


def _trajectory(recorded: _Recorded, line: bytes) -> msgspec.Raw:
    """Return the recorded list of messages, with the completion where `Record.recorded_messages` appends it."""
    listed = (parse_raw_text(text) for text in (recorded.messages, recorded.trajectory) if _is_present(text))
    turns = next(listed, None)
    reasoning = recorded.recorded_reasoning()
    if turns is None or _is_present(recorded.completion) or reasoning is not None:
        inner = _list_items(parse_raw_text(recorded.prompt) if turns is None else turns, "user")
        count_with_answer = len(decode_record(line).recorded_messages() or ())
        count = len(_items.decode(b"[" + inner + b"]"))
        # An answer may be reasoning alone, without a completion.
        answer = recorded.completion if _is_present(recorded.completion) else msgspec.Raw(b'""')
        completion = _list_items(answer, "assistant") if count_with_answer > count else b""
        turns = msgspec.Raw(b"[" + b",".join(text for text in (inner, completion) if text) + b"]")
    return _with_reasoning(turns, reasoning)


def _with_reasoning(turns: msgspec.Raw, completion_reasoning: msgspec.Raw | None) -> msgspec.Raw:
    """Return messages with reasoning under `reasoning_content`, that beside the completion in its message."""
    text = bytes(turns)
    if completion_reasoning is None and not (
        contains_bytes(text, _NAME_ENDING) and any(name in text for name in _OTHER_NAMES)
    ):
        return turns
    messages = _items.decode(text)
    for number, message in enumerate(messages, start=1):
        names = [name for name in ("reasoning", "thinking") if bytes(message.get(name, NOTHING))[:1] == b'"']
        if names and is_absent(message.get("reasoning_content", NOTHING)):
            messages[number - 1] = {
                "reasoning_content" if key == names[0] else key: value
                for key, value in message.items()
                if key != "reasoning_content"
            }
    if completion_reasoning is not None and messages and is_absent(messages[-1].get("reasoning_content", NOTHING)):
        messages[-1]["reasoning_content"] = completion_reasoning
    return msgspec.Raw(msgspec.json.encode(messages))


def _is_present(text: msgspec.Raw) -> bool:
    return len(text) > 0 and bytes(text) != b"null"


def _list_items(text: msgspec.Raw, role: str) -> bytes:
    """Return the messages of a JSON list, without brackets; a JSON string as one message with this role."""
    value = bytes(text)
    if value.startswith(b"["):
        return value[1:-1].strip()
    return b'{"role":"' + role.encode() + b'","content":' + value + b"}" if value.startswith(b'"') else b""
