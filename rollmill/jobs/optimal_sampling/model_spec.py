"""The two models of a mixture as the user chose them, before their weights are loaded. Imports transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from rollmill.errors import InputError
from rollmill.inference.adapter import ADAPTER_CONFIG, read_adapter
from rollmill.jobs.optimal_sampling.vocabulary import check_vocabularies
from rollmill.jobs.training.base_check import check_adapter


@dataclass(frozen=True)
class ModelSpec:
    """One of the two models."""

    name: str
    """As the user gave it."""
    base: str
    """Absolute directory or hub id of the weights: equal where two names mean one place."""
    adapter: str | None
    """Absolute directory of the LoRA adapter on them."""
    tokenizer: Any
    end_tokens: frozenset[int]


@dataclass(frozen=True)
class ChosenPair:
    """Two models with one vocabulary."""

    theta: ModelSpec
    t: ModelSpec
    tokens: int
    """The ids that the tokenizers share: the highest + 1."""

    @property
    def shared(self) -> bool:
        """Whether both have the same weights, whatever adapters they have."""
        return self.theta.base == self.t.base

    @property
    def end_tokens(self) -> frozenset[int]:
        """Either model's."""
        return self.theta.end_tokens | self.t.end_tokens

    @property
    def adapters(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(one.adapter for one in (self.theta, self.t) if one.adapter is not None))


def choose_pair(
    model_theta: str, model_t: str | None = None, *, adapter_theta: str | None = None, adapter_t: str | None = None
) -> ChosenPair:
    """Two models: directories or hub ids; a LoRA adapter's directory stands for its base with it.

    Without `model_t` both have the weights of `model_theta`. Raises `InputError` for adapters, tokenizers and
    vocabularies that cannot be loaded or do not go together.
    """
    base_theta, adapter_theta = _base_and_adapter(model_theta, adapter_theta)
    base_t, adapter_t = _base_and_adapter(model_t, adapter_t) if model_t is not None else (base_theta, adapter_t)
    tokenizers: dict[str, Any] = {}
    theta = _chosen(model_theta, base_theta, adapter_theta, tokenizers)
    t = _chosen(model_t or model_theta, base_t, adapter_t, tokenizers)
    tokens = check_vocabularies(theta.tokenizer, t.tokenizer, names=(theta.name, t.name))
    return ChosenPair(theta, t, tokens)


def _base_and_adapter(model: str, adapter: str | None) -> tuple[str, str | None]:
    if not (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
        return model, adapter
    if adapter is not None:
        raise InputError(f"{model} is an adapter, and {adapter} is given beside it: give its base, or it alone")
    return read_adapter(model).base, model


def _chosen(name: str, base: str, adapter: str | None, tokenizers: dict[str, Any]) -> ModelSpec:
    if adapter is not None:
        check_adapter(adapter, base)
    ends = _end_tokens(base)
    home = _tokenizer_home(base, adapter)
    if home not in tokenizers:
        tokenizers[home] = _tokenizer(home)
    tokenizer = tokenizers[home]
    given = tokenizer.eos_token_id if ends is None else ends
    every = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return ModelSpec(name, _place(base), None if adapter is None else _place(adapter), tokenizer, frozenset(every))


def _place(base: str) -> str:
    """Equal for two names of one directory."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base


def _tokenizer_home(base: str, adapter: str | None) -> str:
    """An adapter may have a tokenizer of its own, with another chat template."""
    own = adapter is not None and (Path(adapter).expanduser() / "tokenizer_config.json").is_file()
    return _place(adapter if adapter is not None and own else base)


def _tokenizer(home: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    except Exception as error:  # the hub, files and tokenizers raise types of their own
        raise InputError(f"cannot load the tokenizer of {home}: {error}") from error


def _end_tokens(base: str) -> Any:
    """Those of the generation configuration, or of the model's where it has none."""
    try:
        configuration: Any = GenerationConfig.from_pretrained(base)
    except OSError:
        configuration = _configuration(base)
    return getattr(configuration, "eos_token_id", None)


def _configuration(base: str) -> Any:
    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the model {base}: {error}") from error


def logits_of(base: str) -> int:
    """The token ids that a model gives logits for, by its configuration. Raises `InputError` where it has none."""
    return int(_configuration(base).get_text_config(decoder=True).vocab_size)
