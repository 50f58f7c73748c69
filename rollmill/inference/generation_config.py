"""What a model's own `generation_config.json` recommends for sampling."""

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
"""What vLLM takes from it, where a request says nothing else, but for the length of answers."""


def recommended_sampling(model: str) -> dict[str, float]:
    """Return what a model recommends, by the names of chat requests; it is downloaded where `model` is a hub id.

    Raises `InputError` where the model's files are not to be had, as of a name that only a server knows.
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
            raise _not_to_be_had(model) from error
        return {}
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise _not_to_be_had(model) from error


def _is_offline(error: Exception) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)


def _not_to_be_had(model: str) -> InputError:
    return InputError(
        f"--sampling model: the generation_config.json of {visible_line(model)[:200]} is not to be had here: give the "
        "model's directory, or --sampling flags with the values that it recommends"
    )


def known_recommendation(model: str) -> dict[str, float] | None:
    """Return what a model recommends, without a download; None where its files are not on this machine."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _read(folder / _FILE)
    if model.count("/") != 1:
        return None  # no id of the hub, whose library takes half a second to import
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, _FILE)
    except (HFValidationError, OSError):
        return None
    return _read(Path(cached)) if isinstance(cached, str) else None


def server_defaults(model: str, arguments: Sequence[str]) -> dict[str, float] | None:
    """Return what a vLLM of our own samples with where a request says nothing; None where that is not known.

    Args:
        model: Directory or hub id.
        arguments: Those that vLLM is started with.
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
        return known  # vLLM itself refuses it


def sampling_notes(sampled: Mapping[str, Any], model: str, *, external: bool, vllm_args: str = "") -> list[str]:
    """Return what a user should know of a model's recommendations and of what a server adds; nothing where all is said.

    Args:
        sampled: What requests say.
        model: Directory or hub id, or a name on servers that run.
        external: Whether servers that run already are asked.
        vllm_args: How one of our own is started besides.
    """
    try:
        recommended = known_recommendation(model)
        added = {} if external else server_defaults(model, shlex.split(vllm_args)) or {}
    except InputError as error:  # of a file that nobody has asked for
        return [str(error)]
    if recommended is None:
        return []
    others = {name: value for name, value in recommended.items() if sampled.get(name) != value}
    if not others:
        return []
    notes = [f"generation_config.json recommends {_listed(others)}: --sampling model takes it"]
    if filled := {name: value for name, value in added.items() if name not in sampled}:
        notes.append(
            f"vLLM samples with {_listed(filled)} of generation_config.json, since no request says otherwise: give the "
            "flags of these names to say it, or --vllm_args '--generation-config vllm' to have vLLM add nothing"
        )
    elif external and (unsaid := {name: value for name, value in others.items() if name not in sampled}):
        notes.append(
            f"the running servers may add {_listed(unsaid)}, as vLLM does by itself: give the flags of these names"
        )
    return notes


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _read(path: Path) -> dict[str, float]:
    """Read a file; nothing is recommended where there is none. Raises `InputError` for one that is no such file."""
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
        raise InputError(f"{where} is no JSON object of at most {_LARGEST:,} bytes: put back the model's own file")
    values = {name: config[name] for name in _NAMES if config.get(name) is not None}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where}: {name} is no number: put back the model's own file, or take it out")
    if values.get("top_k") == 0:  # of transformers, for all
        values["top_k"] = -1
    return values
