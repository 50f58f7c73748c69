"""Whether an adapter belongs to a base model."""

from __future__ import annotations

from pathlib import Path

import orjson

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.inference.adapter import ADAPTER_WEIGHTS, Adapter, Runner, read_adapter
from rollmill.inference.model_identity import model_identity
from rollmill.jobs.training.manifest import read_training_manifest

_PREFIX = "base_model.model."


def check_adapter(
    adapter_dir: str | Path, base: str, *, runner: Runner = "vllm", model_flag: str = "--model_path"
) -> Adapter:
    """Return the adapter, which fits its base.

    Raises `InputError`, naming both bases, where it was trained for another one.

    `base` is a directory or a hub id. With the manifest of our own run the content of both is compared, so that a base
    may be moved; else the names, and where both are on disk the shapes of the weights. Raises as `read_adapter` does,
    which explains `runner` and `model_flag`.
    """
    adapter = read_adapter(adapter_dir, runner=runner, model_flag=model_flag)
    manifest = read_training_manifest(adapter.folder) if (adapter.folder / MANIFEST).exists() else None
    if manifest is not None:
        if manifest.identity.generation["model_path"] != model_identity(base):
            raise _refusal(adapter_dir, manifest.base, base, "their contents differ")
    elif not Path(base).is_dir():
        if adapter.base != base:
            raise _refusal(adapter_dir, adapter.base, base, "their names differ")
    elif why := _misfit(adapter.folder / ADAPTER_WEIGHTS, Path(base)):
        raise _refusal(adapter_dir, adapter.base, base, why)
    return adapter


def _refusal(adapter: str | Path, trained_for: str, base: str, why: str) -> InputError:
    return InputError(f"the adapter {adapter} was trained for {trained_for}, not for {base} ({why}): give its own base")


def _misfit(weights: Path, base: Path) -> str | None:
    """Return the first layer of the adapter that the base has not, or in another shape; None where all fit."""
    base_shapes: dict[str, list[int]] = {}
    for file in sorted(base.glob("*.safetensors")):
        base_shapes |= _shapes(file)
    if not base_shapes:
        return None
    for name, shape in _shapes(weights).items():
        for part, side in ((".lora_A.weight", 1), (".lora_B.weight", 0)):
            if not name.endswith(part):
                continue
            layer = name.removeprefix(_PREFIX).removesuffix(part)
            base_shape = base_shapes.get(f"{layer}.weight")
            if base_shape is None:
                return f"it has no layer {layer}"
            if len(base_shape) == 2 and base_shape[side] != shape[side]:
                return f"{layer} has {base_shape[side]} {'inputs' if side else 'outputs'}, the adapter {shape[side]}"
    return None


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return name and shape of each tensor, from the file's header: 8 bytes of its length, then JSON."""
    try:
        with path.open("rb") as file:
            header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as safetensors: {error}") from error
    return {name: facts["shape"] for name, facts in header.items() if name != "__metadata__"}
