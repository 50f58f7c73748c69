"""Checks that an adapter was trained for a base model."""

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
    """Return an adapter, after checking that it fits its base model.

    With the manifest of a run of our own, the content of both bases is compared, so that a base may be moved; else
    their names, and where the base is on disk the shapes of the weights. Raises `InputError`, naming both bases, where
    the adapter was trained for another one, and as `read_adapter` does.

    Args:
        adapter_dir: Directory of the adapter.
        base: Directory or hub id of the base model.
        runner: What loads the adapter, as in `read_adapter`.
        model_flag: The flag that messages name, as in `read_adapter`.
    """
    adapter = read_adapter(adapter_dir, runner=runner, model_flag=model_flag)
    manifest = read_training_manifest(adapter.folder) if (adapter.folder / MANIFEST).exists() else None
    if manifest is not None:
        if manifest.identity.generation["model_path"] != model_identity(base):
            raise _refusal(adapter_dir, manifest.base, base, "their contents differ")
    elif not Path(base).is_dir():
        if adapter.base != base:
            raise _refusal(adapter_dir, adapter.base, base, "their names differ")
    elif mismatch := _find_mismatch(adapter.folder / ADAPTER_WEIGHTS, Path(base)):
        raise _refusal(adapter_dir, adapter.base, base, mismatch)
    return adapter


def _refusal(adapter: str | Path, trained_for: str, base: str, reason: str) -> InputError:
    """Return the error for an adapter of another base.

    Args:
        adapter: Directory of the adapter.
        trained_for: The base that it was trained for.
        base: The base that the user gave.
        reason: The difference between the two.
    """
    return InputError(
        f"the adapter {adapter} was trained for {trained_for}, not for {base} ({reason}): give its own base"
    )


def _find_mismatch(weights: Path, base: Path) -> str | None:
    """Return the first layer of the adapter that the base lacks, or has in another shape; None where all fit."""
    base_shapes: dict[str, list[int]] = {}
    for file in sorted(base.glob("*.safetensors")):
        base_shapes |= _shapes(file)
    if not base_shapes:
        return None
    for name, shape in _shapes(weights).items():
        # A is (rank, inputs) and B is (outputs, rank); the base's weight is (outputs, inputs).
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
    """Return name and shape of each tensor, from the header of a safetensors file: 8 bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as safetensors: {error}") from error
    return {name: facts["shape"] for name, facts in header.items() if name != "__metadata__"}
