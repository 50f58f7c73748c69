"""The two models of a mixture as the user names them, before weights are loaded. Imports transformers."""

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
    """One of the two models: weights, adapter, tokenizer."""

    name: str
    """The name that the user gave."""
    base: str
    """Absolute directory or hub id of the weights: equal where two names mean the same directory."""
    adapter: str | None
    """Absolute directory of the LoRA adapter on the weights; None for none."""
    tokenizer: Any
    end_tokens: frozenset[int]


@dataclass(frozen=True)
class PairSpec:
    """Two models with a common vocabulary."""

    theta: ModelSpec
    t: ModelSpec
    vocabulary: Vocabulary
    """The token ids that the tokenizers share."""

    @property
    def shared(self) -> bool:
        """True if both have the same weights, with the same adapters or not."""
        return self.theta.base == self.t.base

    @property
    def end_tokens(self) -> frozenset[int]:
        """Token ids that end an answer, of either model."""
        return self.theta.end_tokens | self.t.end_tokens

    @property
    def adapters(self) -> list[str]:
        """Directories of the adapters, each once."""
        return list(dict.fromkeys(member.adapter for member in (self.theta, self.t) if member.adapter is not None))


def resolve_pair(
    model_theta: str,
    model_t: str | None = None,
    *,
    adapter_theta: str | None = None,
    adapter_t: str | None = None,
    runner: Runner = "peft",
) -> PairSpec:
    """Return two models by directories or hub ids; a LoRA adapter's directory stands for its base with the adapter.

    Without `model_t` both have the weights of `model_theta`. Raises `InputError` for adapters, tokenizers and
    vocabularies that cannot be loaded or do not go together.

    Args:
        model_theta: Directory or hub id of the policy.
        model_t: Directory or hub id of the target model; None for the policy's weights.
        adapter_theta: Directory of a LoRA adapter on the policy.
        adapter_t: Directory of a LoRA adapter on the target model.
        runner: The library that loads the adapters, which decides the kinds that it can load.
    """
    base_theta, adapter_theta = _base_and_adapter(model_theta, adapter_theta, AdapterRules(runner, "--model_theta"))
    base_t, adapter_t = (
        _base_and_adapter(model_t, adapter_t, AdapterRules(runner, "--model_t"))
        if model_t is not None
        else (base_theta, adapter_t)
    )
    tokenizers: dict[str, Any] = {}
    theta = _resolve_model(model_theta, base_theta, adapter_theta, tokenizers, AdapterRules(runner, "--model_theta"))
    t = _resolve_model(model_t or model_theta, base_t, adapter_t, tokenizers, AdapterRules(runner, "--model_t"))
    if runner == "peft" and theta.base == t.base and theta.adapter != t.adapter:
        sides = {"--model_theta": theta.adapter, "--model_t": t.adapter}
        check_mixed({flag: adapter for flag, adapter in sides.items() if adapter is not None})
    ends = theta.end_tokens | t.end_tokens
    vocabulary = check_vocabularies(theta.tokenizer, t.tokenizer, names=(theta.name, t.name), end_tokens=ends)
    return PairSpec(theta, t, vocabulary)


class AdapterRules(NamedTuple):
    """Requirements on an adapter, as arguments of `read_adapter`."""

    runner: Runner
    model_flag: str


def _base_and_adapter(model: str, adapter: str | None, rules: AdapterRules) -> tuple[str, str | None]:
    if not (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
        return model, adapter
    if adapter is not None:
        raise InputError(f"{model} is an adapter, and {adapter} is given beside it: give its base, or it alone")
    return read_adapter(model, **rules._asdict()).base, model


def _resolve_model(
    name: str, base: str, adapter: str | None, tokenizers: dict[str, Any], rules: AdapterRules
) -> ModelSpec:
    """Return one of the two models.

    Args:
        name: The name that the user gave.
        base: Directory or hub id of the weights.
        adapter: Directory of the adapter on the weights; None for none.
        tokenizers: Tokenizers loaded already, by their directory or hub id; may get one more.
        rules: Requirements on the adapter.
    """
    if adapter is not None:
        check_adapter(adapter, base, **rules._asdict())
    # First: a model that cannot be loaded is reported as such, not by its missing tokenizer.
    configured = _end_tokens(base)
    source = _tokenizer_source(base, adapter)
    if source not in tokenizers:
        tokenizers[source] = _tokenizer(source)
    tokenizer = tokenizers[source]
    end_ids = tokenizer.eos_token_id if configured is None else configured
    if end_ids is None:
        end_ids = []
    elif not isinstance(end_ids, list | tuple):
        end_ids = [end_ids]
    directory = None if adapter is None else _canonical_name(adapter)
    return ModelSpec(name, _canonical_name(base), directory, tokenizer, frozenset(end_ids))


def _canonical_name(base: str) -> str:
    """Return an absolute directory, which is equal for all names of it; a hub id as it is."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base


def _tokenizer_source(base: str, adapter: str | None) -> str:
    """Return the directory or hub id of the tokenizer: an adapter may have its own, with another chat template."""
    has_tokenizer = adapter is not None and (Path(adapter).expanduser() / "tokenizer_config.json").is_file()
    return _canonical_name(adapter if adapter is not None and has_tokenizer else base)


def _tokenizer(source: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the hub, files and tokenizers raise types of their own
        raise InputError(f"cannot load the tokenizer of {source}: {error}") from error


def _end_tokens(base: str) -> Any:
    """Return `eos_token_id` of `generation_config.json`, or of `config.json` where there is none."""
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
    """Return the number of logits of a model, often above its tokenizer's. Raises `InputError` without a config."""
    return int(_configuration(base).get_text_config(decoder=True).vocab_size)


def context_of(base: str) -> int | None:
    """Return a model's context in tokens, RoPE scaling included; None where its config does not have it."""
    from rollmill.jobs.training.worker import model_length

    return model_length(base)
