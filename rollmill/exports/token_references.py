"""Locations of recorded tokens in rows that leave a run's folder: paths from the new file to the run's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import orjson
from pydantic import ValidationError

from rollmill.records import TokenLocation

_MARK = b'"tokens"'
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def token_location(value: Any) -> TokenLocation | None:
    """Return the location in a row's field; None where the field is none."""
    if not isinstance(value, dict):
        return None
    try:
        # Where rows share columns, a field that one row has is null in all others.
        return TokenLocation.model_validate({name: item for name, item in value.items() if item is not None})
    except ValidationError:
        return None


def relocate(location: TokenLocation, source: Path | None, folder: Path) -> TokenLocation | None:
    """Return a location that is relative to `folder`, without the byte offset; None for tokens of another machine.

    Args:
        location: relative to the folder `source`.
        source: None where the file is on another machine.
        folder: that of the new file.
    """
    if source is None:
        return None
    file = os.path.relpath(source.resolve() / location.file, folder.resolve())
    return location.model_copy(update={"file": file, "offset": None})


def with_moved_tokens(record: bytes, source: Path | None, folder: Path) -> bytes:
    """Return a record for a file in another folder: with the new location of its tokens, or without one.

    Args:
        record: JSON of a rollout or a training row.
        source: folder of its own file; None where that is on another machine.
        folder: that of the new file.
    """
    if _MARK not in record:
        return record
    fields = _fields.decode(record)
    raw = fields.get("tokens")
    location = token_location(orjson.loads(bytes(raw))) if raw is not None else None
    metadata = bytes(fields.get("metadata", b""))
    if location is None and metadata[:1] == b"{":  # a training row
        changed = with_moved_tokens(metadata, source, folder)
        return record if changed is metadata else msgspec.json.encode(fields | {"metadata": msgspec.Raw(changed)})
    if location is None:
        return record
    new_location = relocate(location, source, folder)
    others: dict[str, Any] = {name: value for name, value in fields.items() if name != "tokens"}
    return msgspec.json.encode(others | ({"tokens": new_location.model_dump()} if new_location else {}))
