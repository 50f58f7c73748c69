"""Conversion of rows to records: rows of other producers, and rows whose fields the user names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import orjson

from rollmill.corpus.json_repair import repair
from rollmill.corpus.producer import Producer, RowOrigin, find_producer
from rollmill.corpus.producer_values import as_chat, make_verdict, parse_json_text
from rollmill.errors import InputError
from rollmill.files.raw_row import RawRow
from rollmill.files.rows import BadRow, Row

CONVERSATION = ("messages", "trajectory", "prompt", "completion")
"""Fields of a record that can contain its conversation."""
_RECORD_FIELDS = frozenset({*CONVERSATION, "reward", "success", "error", "verdict"})
_REWARDS = frozenset({"reward", "success", "verdict"})
_FIELDS_SHOWN, _LONGEST_NAME = 12, 40
_SUFFIXES = re.compile(r"(?:\.(?:traj|trajectory|jsonl?|ndjson|eval|parquet|gz|zst|xz|bz2))+$", re.I)


class FieldNames(NamedTuple):
    """Names of fields that the user gave, with dots for nested ones. None: the producer's own field."""

    id: str | None = None
    reward: str | None = None
    messages: str | None = None


NO_NAMES = FieldNames()


class RowReader(NamedTuple):
    """Converts the rows of one file to records."""

    producer: Producer | None
    fields: FieldNames
    name: str
    """Name of the file, without suffixes."""
    path: str = ""

    def rows(self, stored: Iterable[RawRow | BadRow]) -> Iterator[RawRow | BadRow]:
        """Yield the records' bytes, or bad rows with the reason.

        A row may contain several records, whose numbers then follow one another.
        """
        last, rest = 0, iter(stored)
        row, following = next(rest, None), next(rest, None)
        alone = following is None  # a file with a single row is named by the file alone
        while row is not None:
            for record in [row] if isinstance(row, BadRow) else self._records(row, alone=alone):
                last = max(last + 1, record.number)
                yield record._replace(number=last)
            row, following = following, next(rest, None)

    def _records(self, row: RawRow, *, alone: bool) -> Iterator[RawRow | BadRow]:
        document = parse_row(row)
        # The producer of the first row is tried first: rows of one file are rarely of several.
        producer = self.producer if self.producer and self.producer.recognizes(document) else find_producer(document)
        if producer is None and (self.fields == NO_NAMES or not isinstance(document, dict)):
            # The offset is useless in a file that other rows are converted from: it is read in order.
            yield row._replace(offset=None)
            return
        try:
            origin = RowOrigin(self.name, row.number, alone, self.path)
            rollouts = [document] if producer is None else list(producer.rollouts(document, origin))
            for rollout in rollouts:
                yield self._apply_field_names(row, document, rollout)
        except RecursionError as error:
            yield _bad(row, None, f"cannot be read: {error}")

    def _apply_field_names(self, row: RawRow, document: Any, rollout: Row) -> RawRow | BadRow:
        """Return one record, with the values of the fields that the user names."""
        record = {key: value for key, value in rollout.items() if value is not None}
        if self.fields.id is not None:
            record["instance_id"] = look_up(document, self.fields.id)
            if record["instance_id"] in (None, ""):
                return _bad(row, "instance_id", missing_id(document, self.fields.id))
        if self.fields.reward is not None:
            value = look_up(document, self.fields.reward)
            record |= make_verdict(value, value if isinstance(value, bool) else None)
        if self.fields.messages is not None:
            messages = as_chat(look_up(document, self.fields.messages))
            if messages is None:
                return _bad(row, "messages", f"{self.fields.messages} holds no messages")
            record = {key: value for key, value in record.items() if key not in CONVERSATION} | {"messages": messages}
        try:
            return RawRow(row.number, orjson.dumps(record))
        except TypeError as error:  # orjson's, for values nested beyond its bounds
            return _bad(row, None, f"cannot be read: {error}")


def find_reader(path: str, first: Any, fields: FieldNames) -> RowReader | None:
    """Return what converts a file's rows to records; None where its rows are records already.

    Raises `InputError` where its rows have no known form, with the fields that they have.

    Args:
        path: the file.
        first: its first row, decoded; None where it cannot be decoded.
        fields: names of fields that the user gave.
    """
    producer = find_producer(first)
    if producer is None and fields == NO_NAMES:
        if (
            isinstance(first, dict)
            and first
            and "instance_id" in first
            and _RECORD_FIELDS.isdisjoint(first)
            and len(first) > 1
        ):
            _check_known(path, first)
        return None
    return RowReader(producer, fields, _SUFFIXES.sub("", path.rsplit("/", 1)[-1]), path)


def _check_known(path: str, first: Row) -> None:
    """Raise `InputError` for rows of which some field may be a conversation, though none is known to be one."""
    metadata = parse_json_text(first.get("metadata"))
    if isinstance(metadata, dict) and not _RECORD_FIELDS.isdisjoint(metadata):
        return
    values = (parse_json_text(value) for name, value in first.items() if name not in ("metadata", "instance_id"))
    if any(isinstance(value, dict | list) and value for value in values):
        raise InputError(
            f"{path}: its rows have no known form; their fields are {list_fields(first)}: name the messages with "
            "--messages_field, the reward with --reward_field"
        )


def parse_row(row: RawRow | BadRow | None) -> Any:
    """Return the decoded row, NaN as null; None where it is no JSON."""
    if row is None or isinstance(row, BadRow):
        return None
    try:
        return orjson.loads(row.text)
    except orjson.JSONDecodeError:
        repaired = repair(row.text)
    try:
        return None if repaired is None else orjson.loads(repaired)
    except orjson.JSONDecodeError:
        return None


def is_message(value: Any) -> bool:
    """Return whether a decoded value is a message of a conversation."""
    messages = as_chat([value]) if isinstance(value, dict) else None
    return messages is not None and isinstance(messages[0].get("role"), str) and "content" in messages[0]


def look_up(document: Any, path: str) -> Any:
    """Return the value of a field by its name, or by a path of names with dots; None where there is none."""
    if isinstance(document, dict) and path in document:
        return document[path]
    for name in path.split("."):
        document = parse_json_text(document)
        document = document.get(name) if isinstance(document, dict) else None
    return document


def missing_id(document: Any, looked_for: str = "instance_id") -> str:
    """Return the reason of a row without an id: the field looked for, the fields that it has, and what to do."""
    known = document if isinstance(document, dict) else {}
    flags = ["--id_field"]
    if known and not known.keys() & {*CONVERSATION}:
        flags.append("the messages with --messages_field")
        if not known.keys() & _REWARDS:
            flags.append("the reward with --reward_field")
    more = f", {', '.join(flags[1:])}" if flags[1:] else ""
    return (
        f"missing: `{looked_for}` identifies the problem of a row; the row has {list_fields(known)}: "
        f"name one with --id_field{more}"
    )


def list_fields(document: Row) -> str:
    """Return the names of a row's fields, at most the first `_FIELDS_SHOWN`."""
    names = (str(name)[:_LONGEST_NAME] for name in document)
    return ", ".join(islice(names, _FIELDS_SHOWN)) or "nothing"


def _bad(row: RawRow, field: str | None, reason: str) -> BadRow:
    return BadRow(row.number, field, reason, row.text[:2000].decode("utf-8", "backslashreplace").rstrip("\n"))
