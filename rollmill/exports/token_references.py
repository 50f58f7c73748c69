"""Where rows that leave a run find the tokens of their rollouts: paths from the new file to the run's."""

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
    """Return the location that a row's field says; None where it says none."""
    if not isinstance(value, dict):
        return None
    try:
        # Where rows share columns, a field that one row has is null in all others.
        return TokenLocation.model_validate({name: item for name, item in value.items() if item is not None})
    except ValidationError:
        return None


def moved(location: TokenLocation, source: Path | None, folder: Path) -> TokenLocation | None:
    """Return a location in a file of the folder `source` as a file of another folder says it: without the byte.

    None where the tokens are on another machine (`source` is None).
    """
    if source is None:
        return None
    file = os.path.relpath(source.resolve() / location.file, folder.resolve())
    return location.model_copy(update={"file": file, "offset": None})


def with_moved_tokens(record: bytes, source: Path | None, folder: Path) -> bytes:
    """Return a record as a file of another folder has it: it finds its tokens, or says nothing of them."""
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
    there = moved(location, source, folder)
    others: dict[str, Any] = {name: value for name, value in fields.items() if name != "tokens"}
    return msgspec.json.encode(others | ({"tokens": there.model_dump()} if there else {}))
