"""Whole trajectories: everything that was recorded, under the keys that trajectory learners know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import polars as pl

from rollmill.corpus.record import NOTHING, decode_record
from rollmill.exports.export_result import Exported, account
from rollmill.exports.origins import rollouts
from rollmill.exports.packing import output_kind, write_packed, write_rows
from rollmill.exports.splitting import TRAIN
from rollmill.exports.training_file import is_unicode

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

_NULL = msgspec.Raw(b"null")
_FACTS = ["row", "instance_id", "sample_id", "reward", "speedup", "success", "model_calls"]


class _Recorded(msgspec.Struct):
    """A record's fields as JSON text."""

    problem_statement: msgspec.Raw = _NULL
    messages: msgspec.Raw = NOTHING
    trajectory: msgspec.Raw = NOTHING
    prompt: msgspec.Raw = NOTHING
    completion: msgspec.Raw = NOTHING
    git_diff: msgspec.Raw = _NULL
    exit_status: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL


_decoder = msgspec.json.Decoder(_Recorded)
_encoder = msgspec.json.Encoder(enc_hook=str)


def export_trajectory(
    path: Path, corpus: Corpus, kept: pl.DataFrame, *, origin: Mapping[str, Any] | None = None
) -> Exported:
    """Writes each row of `kept` whole, messages exactly as recorded, a completion that stands apart as the last.

    Keys, null where nothing was recorded: `instance_id`, `sample_id`, `problem_statement`, `trajectory` (a list),
    `git_diff`, `exit_status`, `reward`, `speedup`, `success`, `model_calls`, `metadata`. Reward, speedup and success
    are the table's: what an evaluation denies is no success. `.json` -> `{"metadata": origin, "trajectories": [...]}`,
    `.jsonl` -> a line each, `.gz` and `.zst` behind either compress it. Dropped are only rows that are no UTF-8
    (`not_unicode`). Raises `InputError` for other names.
    """
    layout = output_kind(path).layout
    used: list[int] = []
    problems: set[str] = set()
    dropped: list[tuple[int, str]] = []

    def rows() -> Iterator[bytes]:
        for facts, line in rollouts(corpus, kept, _FACTS):
            row = facts.pop("row")
            if not is_unicode(line):
                dropped.append((row, "not_unicode"))
                continue
            used.append(row)
            problems.add(facts["instance_id"])
            yield _whole(facts, line)

    with write_packed(path) as file:
        if layout == ".json":
            file.write(b'{"metadata": ' + _encoder.encode(dict(origin or {})) + b',\n"trajectories": [')
        write_rows(file, rows(), layout)
        if layout == ".json":
            file.write(b"\n]}\n")
    table = account(kept, used, dropped)
    return Exported("trajectories", {TRAIN: path}, {TRAIN: len(used)}, {TRAIN: len(problems)}, len(used), table)


def _whole(facts: dict[str, Any], line: bytes) -> bytes:
    recorded = _decoder.decode(line)
    return _encoder.encode(
        {
            "instance_id": facts["instance_id"],
            "sample_id": facts["sample_id"],
            "problem_statement": recorded.problem_statement,
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
    """The recorded list of messages, the completion appended where `Record.conversation` appends it."""
    turns = next((text for text in (recorded.messages, recorded.trajectory) if _is_given(text)), None)
    if turns is not None and not _is_given(recorded.completion):
        return turns
    inner = _inside(turns if turns is not None else recorded.prompt, "user")
    every = len(decode_record(line).conversation() or ())
    completion = _inside(recorded.completion, "assistant") if every > len(orjson.loads(b"[" + inner + b"]")) else b""
    return msgspec.Raw(b"[" + b",".join(text for text in (inner, completion) if text) + b"]")


def _is_given(text: msgspec.Raw) -> bool:
    return len(text) > 0 and bytes(text) != b"null"


def _inside(text: msgspec.Raw, role: str) -> bytes:
    """The messages of a JSON list, or the one message that a JSON string is, without brackets around them."""
    value = bytes(text)
    if value.startswith(b"["):
        return value[1:-1].strip()
    return b'{"role":"' + role.encode() + b'","content":' + value + b"}" if value.startswith(b'"') else b""
