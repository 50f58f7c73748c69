"""Whether an adapter belongs to a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from rollmill.errors import InputError
from rollmill.rollouts.manifest import MANIFEST
from rollmill.serving.model_identity import model_identity
from rollmill.training.manifest import read_training_manifest

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def check_adapter(adapter_dir: str | Path, base: str) -> None:
    """Raises `InputError`, naming both bases, where the adapter was trained for another base than `base`.

    `base` is a directory or a hub id. With the manifest of our own run the content of both is compared, so that a base
    may be moved; else the names, and where both are on disk the shapes of the weights.
    """
    folder = Path(adapter_dir)
    try:
        config: dict[str, Any] = orjson.loads((folder / ADAPTER_CONFIG).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{folder} is not a LoRA adapter: {ADAPTER_CONFIG} cannot be read ({error})") from error
    manifest = read_training_manifest(folder) if (folder / MANIFEST).exists() else None
    trained_for = manifest.base if manifest else str(config.get("base_model_name_or_path"))
    if manifest is not None:
        if manifest.identity.generation["model_path"] != model_identity(base):
            raise _refusal(folder, trained_for, base, "their contents differ")
        return
    if not Path(base).is_dir():
        if trained_for != base:
            raise _refusal(folder, trained_for, base, "their names differ")
        return
    if why := _misfit(folder / ADAPTER_WEIGHTS, Path(base)):
        raise _refusal(folder, trained_for, base, why)


def _refusal(folder: Path, trained_for: str, base: str, why: str) -> InputError:
    return InputError(f"the adapter {folder} was trained for {trained_for}, not for {base} ({why}): give its own base")


def _misfit(weights: Path, base: Path) -> str | None:
    """The first layer of the adapter that the base has not, or in another shape; None where all fit."""
    there: dict[str, list[int]] = {}
    for file in sorted(base.glob("*.safetensors")):
        there |= _shapes(file)
    if not there or not weights.exists():
        return None
    for name, shape in _shapes(weights).items():
        for part, side in ((".lora_A.weight", 1), (".lora_B.weight", 0)):
            if not name.endswith(part):
                continue
            layer = name.removeprefix(_PREFIX).removesuffix(part)
            found = there.get(f"{layer}.weight")
            if found is None:
                return f"it has no layer {layer}"
            if len(found) == 2 and found[side] != shape[side]:
                return f"{layer} has {found[side]} {'inputs' if side else 'outputs'}, the adapter {shape[side]}"
    return None


def _shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of each tensor, from the file's header: 8 bytes of its length, then JSON."""
    try:
        with path.open("rb") as file:
            header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as safetensors: {error}") from error
    return {name: facts["shape"] for name, facts in header.items() if name != "__metadata__"}
