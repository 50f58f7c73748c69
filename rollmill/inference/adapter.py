"""LoRA adapters on disk: check that vLLM or PEFT can run them, and build vLLM's arguments for them."""

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
"""Values of `--max-lora-rank` that vLLM accepts (`MaxLoRARanks` in `vllm/config/lora.py`)."""
_REPEATED = re.compile(r"[*+}]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")

Runner = Literal["vllm", "peft"]
"""The library that runs an adapter: vLLM supports fewer kinds than PEFT."""


class Adapter(NamedTuple):
    """A LoRA adapter that was checked."""

    folder: Path
    """Absolute path."""
    base: str
    """The base model, as the adapter's configuration names it."""
    rank: int
    """The highest rank of its matrices."""

    @property
    def identity(self) -> str:
        """Return a fingerprint of its configuration and weights; other files in the folder do not count."""
        return fingerprint([self.folder / ADAPTER_CONFIG, self.folder / ADAPTER_WEIGHTS])

    def arguments(self, name: str) -> list[str]:
        """Return the vLLM arguments that serve it as `name`. As JSON, since names and paths may contain `=` and `,`."""
        return adapter_arguments({name: self})


def adapter_arguments(adapters: Mapping[str, Adapter]) -> list[str]:
    """Return the arguments with which one vLLM serves adapters by name, any mix of them in a batch; empty for none."""
    if not adapters:
        return []
    arguments = room_for_adapters(adapters.values())
    modules = [{"name": name, "path": str(adapter.folder)} for name, adapter in adapters.items()]
    # Training may have taught another end-of-turn token than the base's; vLLM reads stop tokens from one folder for
    # all models that it serves.
    ends = [str(adapter.folder) for adapter in adapters.values() if (adapter.folder / GENERATION_CONFIG).is_file()]
    stops = ["--generation-config", ends[0]] if ends else []
    return [*arguments, *stops, "--lora-modules", *(orjson.dumps(module).decode() for module in modules)]


def room_for_adapters(adapters: Collection[Adapter]) -> list[str]:
    """Return the arguments with which vLLM can run all adapters in one batch; empty for none.

    Without a GPU one slot more than adapters is reserved: in a mixed batch, vLLM 0.32 on the CPU applies the adapter in
    the last slot to requests without an adapter (https://github.com/vllm-project/vllm/pull/48421).
    """
    if not adapters:
        return []
    needed = max(adapter.rank for adapter in adapters)
    slots = len(adapters) if has_accelerator() else len(adapters) + 1
    arguments = ["--enable-lora", "--max-lora-rank", str(next(rank for rank in RANKS if rank >= needed))]
    return [*arguments, "--max-loras", str(slots)] if slots > 1 else arguments


def read_adapter(adapter_dir: str | Path, *, runner: Runner = "vllm", model_flag: str = "--model_path") -> Adapter:
    """Read the adapter in a directory. Raises `InputError` where there is none, or the runner does not support it.

    Args:
        adapter_dir: Local directory with adapter_config.json.
        runner: The library that will run it.
        model_flag: The command line flag for complete models, for messages.
    """
    folder = Path(adapter_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no adapter directory {adapter_dir}: give a local one, with {ADAPTER_CONFIG} in it")
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
            f"{folder} has a pattern of modules that may take forever to match ({pattern[:80]!r}): list the modules' "
            f"names in {ADAPTER_CONFIG}, or use at most four repetitions and no repeated group"
        )
    rank = max(ranks)
    if runner == "vllm" and (reason := _unsupported_by_vllm(config, rank)):
        raise InputError(f"vLLM does not serve the adapter {folder} beside its base: {reason}: {merge}")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"the adapter {folder} has no {ADAPTER_WEIGHTS}: save it completely, as safetensors")
    return Adapter(folder=folder.resolve(), base=str(config.get("base_model_name_or_path")), rank=rank)


def check_mixed(adapters: Mapping[str, str | Path]) -> None:
    """Raise `InputError` for an adapter that PEFT cannot run in a batch with rows of other adapters or of the base.

    `adapters` maps the command line flag for complete models, for messages, to the adapter's directory.
    """
    for model_flag, folder in adapters.items():
        config = _config(Path(folder).expanduser(), model_flag)
        reason = "it is a DoRA adapter" if config.get("use_dora") else None
        if config.get("bias", "none") != "none":
            reason = "its biases replace the base's"
        if reason:
            raise InputError(
                f"PEFT does not run the adapter {folder} in one pass with other rows on its base: {reason}: "
                f"{_merge(model_flag)}"
            )


def _merge(model_flag: str) -> str:
    return f"merge it into its base, and give that as {model_flag}"


def _config(folder: Path, model_flag: str) -> dict[str, Any]:
    if not (folder / ADAPTER_CONFIG).exists() and (folder / "config.json").exists():
        raise InputError(f"{folder} is not a LoRA adapter but a complete model: give it as {model_flag}")
    try:
        config = orjson.loads((folder / ADAPTER_CONFIG).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(
            f"{folder} is not a LoRA adapter: {ADAPTER_CONFIG} cannot be read ({error}): give an adapter's directory"
        ) from error
    if not isinstance(config, dict):
        raise InputError(
            f"{folder} is not a LoRA adapter: {ADAPTER_CONFIG} is not a JSON object: give an adapter's directory"
        )
    return config


def _slow_pattern(config: dict[str, Any]) -> str | None:
    """Return a regular expression in the configuration that may backtrack exponentially; None where there is none.

    PEFT matches these patterns with every layer's name.
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


def _unsupported_by_vllm(config: dict[str, Any], rank: int) -> str | None:
    """Return why vLLM refuses an adapter (`PEFTHelper` in `vllm/lora/peft_helper.py`); None where it accepts it."""
    if layers := config.get("modules_to_save"):
        return f"it has complete layers (modules_to_save: {', '.join(map(str, layers))})"
    if config.get("use_dora"):
        return "it is a DoRA adapter"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "it has biases"
    if rank > RANKS[-1]:
        return f"its rank is {rank}, and the highest that vLLM serves is {RANKS[-1]}"
    return None
