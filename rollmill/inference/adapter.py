"""A LoRA adapter on disk, as vLLM serves it beside its base, or as PEFT runs it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.inference.machine import has_accelerator
from rollmill.inference.model_identity import fingerprint

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
GENERATION_CONFIG = "generation_config.json"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of `--max-lora-rank` that vLLM takes (`MaxLoRARanks` in `vllm/config/lora.py`)."""
_REPEATED = re.compile(r"[*+}]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")

Runner = Literal["vllm", "peft"]
"""What runs an adapter: vLLM takes fewer kinds than PEFT."""


class Adapter(NamedTuple):
    """An adapter that can be run on its base."""

    folder: Path
    """Absolute."""
    base: str
    """The base model, as the adapter's configuration names it."""
    rank: int
    """The greatest rank of its matrices."""

    @property
    def identity(self) -> str:
        """A fingerprint of its configuration and weights; whatever else lies beside them does not count."""
        return fingerprint([self.folder / ADAPTER_CONFIG, self.folder / ADAPTER_WEIGHTS])

    def arguments(self, name: str) -> list[str]:
        """Return what makes vLLM serve it as `name`. As JSON, since both names and paths may have `=` and `,`."""
        return adapter_arguments({name: self})


def adapter_arguments(adapters: Mapping[str, Adapter]) -> list[str]:
    """Return what makes one vLLM serve adapters on its model by name, any of them in any batch; nothing for none."""
    if not adapters:
        return []
    arguments = room_for_adapters(adapters.values())
    modules = [{"name": name, "path": str(adapter.folder)} for name, adapter in adapters.items()]
    # The ends that training taught and the base does not stop at: vLLM takes them from one folder for all it serves.
    ends = [str(adapter.folder) for adapter in adapters.values() if (adapter.folder / GENERATION_CONFIG).is_file()]
    stops = ["--generation-config", ends[0]] if ends else []
    return [*arguments, *stops, "--lora-modules", *(orjson.dumps(module).decode() for module in modules)]


def room_for_adapters(adapters: Collection[Adapter]) -> list[str]:
    """Return what makes a vLLM able to run adapters, all of them in one batch; nothing for none.

    Without an accelerator one place stays empty: vLLM 0.32 on the CPU gives a request without an adapter that is in a
    batch with others the adapter in the last place (https://github.com/vllm-project/vllm/pull/48421).
    """
    if not adapters:
        return []
    needed = max(adapter.rank for adapter in adapters)
    places = len(adapters) if has_accelerator() else len(adapters) + 1
    arguments = ["--enable-lora", "--max-lora-rank", str(next(rank for rank in RANKS if rank >= needed))]
    return [*arguments, "--max-loras", str(places)] if places > 1 else arguments


def read_adapter(adapter_dir: str | Path, *, runner: Runner = "vllm", model_flag: str = "--model_path") -> Adapter:
    """Return the adapter in a directory. Raises `InputError` where there is none, or one that is not run.

    Args:
        adapter_dir: The directory.
        runner: What is to run it.
        model_flag: The flag by which its user names whole models.
    """
    folder = Path(adapter_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no adapter directory {adapter_dir}: give a local one, that holds {ADAPTER_CONFIG}")
    config, merge = _config(folder, model_flag), _merge(model_flag)
    kind, patterns = config.get("peft_type", "LORA"), config.get("rank_pattern") or {}
    if kind != "LORA":
        raise InputError(f"{folder} is not a LoRA adapter: its peft_type is {kind}: {merge}")
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])]
    if any(not isinstance(rank, int) or rank < 1 for rank in ranks):
        raise InputError(
            f"{folder} is not a LoRA adapter: {ADAPTER_CONFIG} has ranks {ranks}: give whole numbers above 0"
        )
    if pattern := _slow_pattern(config):
        raise InputError(
            f"{folder} has a pattern of modules that may match for ever ({pattern[:80]!r}): list the modules' names in "
            f"{ADAPTER_CONFIG}, or repeat no group in it, and at most four times anything"
        )
    rank = max(ranks)
    if runner == "vllm" and (why := _unserved(config, rank)):
        raise InputError(f"vLLM does not serve the adapter {folder} beside its base: {why}: {merge}")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"the adapter {folder} has no {ADAPTER_WEIGHTS}: save it whole, as safetensors")
    return Adapter(folder=folder.resolve(), base=str(config.get("base_model_name_or_path")), rank=rank)


def check_mixed(adapters: Mapping[str, str | Path]) -> None:
    """Raise `InputError` for an adapter that PEFT does not run beside another one, or none, on the same weights.

    `adapters`: the flag by which the user names whole models -> directory.
    """
    for model_flag, folder in adapters.items():
        config = _config(Path(folder).expanduser(), model_flag)
        why = "it is a DoRA adapter" if config.get("use_dora") else None
        if config.get("bias", "none") != "none":
            why = "its biases take the place of the base's"
        if why:
            raise InputError(
                f"PEFT does not run the adapter {folder} in one pass with other rows on its base: {why}: "
                f"{_merge(model_flag)}"
            )


def _merge(model_flag: str) -> str:
    return f"merge it into its base, and give that as {model_flag}"


def _config(folder: Path, model_flag: str) -> dict[str, Any]:
    if not (folder / ADAPTER_CONFIG).exists() and (folder / "config.json").exists():
        raise InputError(f"{folder} is not a LoRA adapter but a whole model: give it as {model_flag}")
    try:
        config = orjson.loads((folder / ADAPTER_CONFIG).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(
            f"{folder} is not a LoRA adapter: {ADAPTER_CONFIG} cannot be read ({error}): give an adapter's directory"
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{folder} is not a LoRA adapter: {ADAPTER_CONFIG} is no object: give an adapter's directory")
    return config


def _slow_pattern(config: dict[str, Any]) -> str | None:
    """Return a regular expression in it that backtracks without a useful end.

    PEFT matches them with every layer's name.
    """
    values = [config.get(name) for name in ("target_modules", "exclude_modules", "layers_pattern")]
    values += [key for name in ("rank_pattern", "alpha_pattern") for key in _keys(config.get(name))]
    patterns = (pattern for pattern in values if isinstance(pattern, str))
    return next(
        (pattern for pattern in patterns if _REPEATED_GROUP.search(pattern) or len(_REPEATED.findall(pattern)) > 4),
        None,
    )


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _unserved(config: dict[str, Any], rank: int) -> str | None:
    """Return what of an adapter vLLM refuses (`PEFTHelper` in `vllm/lora/peft_helper.py`); None where it takes it."""
    if whole := config.get("modules_to_save"):
        return f"it has whole layers of its own (modules_to_save: {', '.join(map(str, whole))})"
    if config.get("use_dora"):
        return "it is a DoRA adapter"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "it has biases"
    if rank > RANKS[-1]:
        return f"its rank is {rank}, the greatest that is served {RANKS[-1]}"
    return None
