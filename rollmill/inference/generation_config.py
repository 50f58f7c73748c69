"""Sampling parameters that a model's `generation_config.json` recommends, and notes on what servers do with them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from rollmill.errors import InputError
from rollmill.files.regular import require_regular
from rollmill.inference.machine import flag_value
from rollmill.terminal.escapes import visible_line

_FILE = "generation_config.json"
_LARGEST = 1 << 20
_NAMES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
"""Parameters that vLLM reads from it as defaults of requests, except the length of completions."""


def recommended_sampling(model: str) -> dict[str, float]:
    """Return a model's recommended sampling parameters, as fields of chat requests; downloads the file of a hub id.

    Raises `InputError` where the file cannot be obtained, as for a name that only a server knows.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _read(folder / _FILE)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return _read(Path(hf_hub_download(model, _FILE)))
    except EntryNotFoundError as error:
        if _is_offline(error):
            raise _unavailable(model) from error
        return {}
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise _unavailable(model) from error


def _is_offline(error: Exception) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)


def _unavailable(model: str) -> InputError:
    return InputError(
        f"--sampling model: the generation_config.json of {visible_line(model)[:200]} is not available here: give the "
        "model's directory, or --sampling flags with the values that it recommends"
    )


def known_recommendation(model: str) -> dict[str, float] | None:
    """Return a model's recommended sampling parameters without a download; None where it is not on this machine."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _read(folder / _FILE)
    if model.count("/") != 1:
        return None  # not a hub id: saves half a second for the import of huggingface_hub
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, _FILE)
    except (HFValidationError, OSError):
        return None
    return _read(Path(cached)) if isinstance(cached, str) else None


def server_defaults(model: str, arguments: Sequence[str]) -> dict[str, float] | None:
    """Return the sampling defaults of a vLLM server that we start; None where they are not known.

    Args:
        model: Directory or hub id.
        arguments: Command line arguments of vLLM.
    """
    source = flag_value(arguments, "--generation-config") or "auto"
    if source == "vllm":
        known: dict[str, float] | None = {}
    else:
        known = known_recommendation(model if source == "auto" else source)
    overriding = flag_value(arguments, "--override-generation-config")
    if overriding is None:
        return known
    try:
        return {**(known or {}), **_recommendation(orjson.loads(overriding), "--override-generation-config")}
    except orjson.JSONDecodeError:
        return known  # vLLM refuses it at its start


def sampling_notes(sampled: Mapping[str, Any], model: str, *, external: bool, vllm_args: str = "") -> list[str]:
    """Return notes where a model recommends other sampling than requests have, or a server adds to it.

    Args:
        sampled: Sampling fields of the requests.
        model: Directory or hub id, or a name on running servers.
        external: Whether running servers are used.
        vllm_args: Additional arguments of a server that we start, in shell syntax.
    """
    try:
        recommended = known_recommendation(model)
        added = {} if external else server_defaults(model, shlex.split(vllm_args)) or {}
    except InputError as error:  # an unreadable file is only worth a note: the user did not ask for it
        return [str(error)]
    if recommended is None:
        return []
    others = {name: value for name, value in recommended.items() if sampled.get(name) != value}
    if not others:
        return []
    notes = [f"generation_config.json recommends {_listed(others)}: --sampling model uses that"]
    if filled := {name: value for name, value in added.items() if name not in sampled}:
        notes.append(
            f"vLLM samples with {_listed(filled)} of generation_config.json, since requests do not set it: give the "
            "flags of these names to set it, or --vllm_args '--generation-config vllm' to have vLLM add nothing"
        )
    elif external and (unset := {name: value for name, value in others.items() if name not in sampled}):
        notes.append(
            f"the running servers may add {_listed(unset)}, as vLLM does by default: give the flags of these names"
        )
    return notes


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _read(path: Path) -> dict[str, float]:
    """Read a generation_config.json; a missing one recommends nothing. Raises `InputError` for an invalid file."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        config = orjson.loads(content) if len(content) <= _LARGEST else None
    except orjson.JSONDecodeError:
        config = None
    return _recommendation(config, str(path))


def _recommendation(config: object, where: str) -> dict[str, float]:
    if not isinstance(config, dict):
        raise InputError(f"{where} is not a JSON object of at most {_LARGEST:,} bytes: put back the model's own file")
    values = {name: config[name] for name in _NAMES if config.get(name) is not None}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where}: {name} is not a number: put back the model's own file, or remove it")
    if values.get("top_k") == 0:  # transformers' value for all tokens; servers use -1
        values["top_k"] = -1
    return values
