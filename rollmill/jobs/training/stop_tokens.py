"""The tokens that generation ends at: what the base model's configuration says, and what training adds to it."""

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
    """Return `eos_token_id`, one or several, of the first file that has it: a generation's, then a model's config."""
    for config in configs:
        found = _read(config).get(_EOS)
        ids = found if isinstance(found, list) else [found]
        if stops := [token for token in ids if isinstance(token, int)]:
            return stops
    return []


def write_generation_config(path: Path, base: str | Path | None, stops: Sequence[int]) -> None:
    """Write the base's generation config with these ids as `eos_token_id`; all else stays as it is."""
    atomic_write_json(path, {**_read(base), _EOS: list(stops)})


def _read(path: str | Path | None) -> dict[str, Any]:
    try:
        config = orjson.loads(Path(path).read_bytes()) if path else {}
    except (OSError, orjson.JSONDecodeError):  # loading the model says it
        return {}
    return config if isinstance(config, dict) else {}
