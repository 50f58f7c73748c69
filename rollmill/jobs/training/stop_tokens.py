"""Stop tokens of generation: those of the base model's configuration, and those that training adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from rollmill.files.atomic import atomic_write_json
from rollmill.inference.adapter import GENERATION_CONFIG

__all__ = ["GENERATION_CONFIG", "read_stop_ids", "write_generation_config"]
_EOS = "eos_token_id"


def read_stop_ids(*configs: str | Path | None) -> list[int]:
    """Return the ids of `eos_token_id` from the first of these files that has it."""
    for config in configs:
        value = _read(config).get(_EOS)
        ids = value if isinstance(value, list) else [value]
        if stops := [token for token in ids if isinstance(token, int)]:
            return stops
    return []


def write_generation_config(path: Path, base: str | Path | None, stops: Sequence[int]) -> None:
    """Write the base's generation config with these ids as `eos_token_id`; everything else stays as it is."""
    atomic_write_json(path, {**_read(base), _EOS: list(stops)})


def _read(path: str | Path | None) -> dict[str, Any]:
    try:
        config = orjson.loads(Path(path).read_bytes()) if path else {}
    except (OSError, orjson.JSONDecodeError):  # loading the model reports it
        return {}
    return config if isinstance(config, dict) else {}
