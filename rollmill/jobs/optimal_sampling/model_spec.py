"""The two models of a mixture as the user chose them, before their weights are loaded. Imports transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from rollmill.errors import InputError
from rollmill.inference.adapter import ADAPTER_CONFIG, Runner, check_mixed, read_adapter
from rollmill.jobs.optimal_sampling.vocabulary import Vocabulary, check_vocabularies
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
    vocabulary: Vocabulary
    """The ids that the tokenizers share."""

    @property
    def shared(self) -> bool:
        """Tell whether both have the same weights, whatever adapters they have."""
        return self.theta.base == self.t.base

    @property
    def end_tokens(self) -> frozenset[int]:
        """Return the token ids that end an answer, of either model."""
        return self.theta.end_tokens | self.t.end_tokens

    @property
    def adapters(self) -> list[str]:
        """Return the directories of the adapters, each once."""
        return list(dict.fromkeys(member.adapter for member in (self.theta, self.t) if member.adapter is not None))


def choose_pair(
    model_theta: str,
    model_t: str | None = None,
    *,
    adapter_theta: str | None = None,
    adapter_t: str | None = None,
    runner: Runner = "peft",
) -> ChosenPair:
    """Choose two models: directories or hub ids; a LoRA adapter's directory stands for its base with it.

    Without `model_t` both have the weights of `model_theta`. Raises `InputError` for adapters, tokenizers and
    vocabularies that cannot be loaded or do not go together.

    Args:
        model_theta: Directory or hub id of the policy.
        model_t: Directory or hub id of the target model.
        adapter_theta: Directory of a LoRA adapter on the policy.
        adapter_t: Directory of a LoRA adapter on the target model.
        runner: What runs the adapters.
    """
    base_theta, adapter_theta = _base_and_adapter(model_theta, adapter_theta, AdapterRules(runner, "--model_theta"))
    base_t, adapter_t = (
        _base_and_adapter(model_t, adapter_t, AdapterRules(runner, "--model_t"))
        if model_t is not None
        else (base_theta, adapter_t)
    )
    tokenizers: dict[str, Any] = {}
    theta = _chosen(model_theta, base_theta, adapter_theta, tokenizers, AdapterRules(runner, "--model_theta"))
    t = _chosen(model_t or model_theta, base_t, adapter_t, tokenizers, AdapterRules(runner, "--model_t"))
    if runner == "peft" and theta.base == t.base and theta.adapter != t.adapter:
        sides = {"--model_theta": theta.adapter, "--model_t": t.adapter}
        check_mixed({flag: adapter for flag, adapter in sides.items() if adapter is not None})
    ends = theta.end_tokens | t.end_tokens
    vocabulary = check_vocabularies(theta.tokenizer, t.tokenizer, names=(theta.name, t.name), end_tokens=ends)
    return ChosenPair(theta, t, vocabulary)


class AdapterRules(NamedTuple):
    """What an adapter has to be; see `read_adapter`."""

    runner: Runner
    model_flag: str


def _base_and_adapter(model: str, adapter: str | None, rules: AdapterRules) -> tuple[str, str | None]:
    if not (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
        return model, adapter
    if adapter is not None:
        raise InputError(f"{model} is an adapter, and {adapter} is given beside it: give its base, or it alone")
    return read_adapter(model, **rules._asdict()).base, model


def _chosen(name: str, base: str, adapter: str | None, tokenizers: dict[str, Any], rules: AdapterRules) -> ModelSpec:
    """Return one of the two models.

    Args:
        name: As the user gave it.
        base: Directory or hub id of the weights.
        adapter: Directory of the adapter on them.
        tokenizers: Those loaded already, by where they are.
        rules: Of adapters.
    """
    if adapter is not None:
        check_adapter(adapter, base, **rules._asdict())
    ends = _end_tokens(base)
    home = _tokenizer_home(base, adapter)
    if home not in tokenizers:
        tokenizers[home] = _tokenizer(home)
    tokenizer = tokenizers[home]
    end_ids = tokenizer.eos_token_id if ends is None else ends
    every = end_ids if isinstance(end_ids, list | tuple) else [] if end_ids is None else [end_ids]
    return ModelSpec(
        name, _canonical_name(base), None if adapter is None else _canonical_name(adapter), tokenizer, frozenset(every)
    )


def _canonical_name(base: str) -> str:
    """Return a name that is equal for all names of one directory."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base


def _tokenizer_home(base: str, adapter: str | None) -> str:
    """Return where the tokenizer is: an adapter may have its own, with another chat template."""
    has_tokenizer = adapter is not None and (Path(adapter).expanduser() / "tokenizer_config.json").is_file()
    return _canonical_name(adapter if adapter is not None and has_tokenizer else base)


def _tokenizer(home: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    except Exception as error:  # the hub, files and tokenizers raise types of their own
        raise InputError(f"cannot load the tokenizer of {home}: {error}") from error


def _end_tokens(base: str) -> Any:
    """Return the end tokens of the generation configuration, or of the model's where it has none."""
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
    """Return how many token ids a model gives logits for. Raises `InputError` where it has no configuration."""
    return int(_configuration(base).get_text_config(decoder=True).vocab_size)
