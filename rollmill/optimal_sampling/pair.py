"""The two models of a mixture, loaded: two sets of weights, or one set that both use in one forward pass.

Imports torch, transformers and, for adapters, PEFT.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rollmill.errors import InputError
from rollmill.optimal_sampling.network import BASE, Network
from rollmill.optimal_sampling.vocabulary import check_vocabularies, common_size
from rollmill.serving.adapter import ADAPTER_CONFIG, read_adapter
from rollmill.training.base_check import check_adapter

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    name: str
    """As the user gave it."""
    network: Network
    adapter: str
    """Of the network's adapters the one that this side has; `BASE` for none."""
    tokenizer: Any


@dataclass(frozen=True)
class Pair:
    """Two models with one vocabulary."""

    theta: Side
    t: Side
    vocabulary: int
    """Ids from 0 to this are drawn from."""
    end_tokens: frozenset[int]
    """Either model's."""
    device: torch.device

    @property
    def networks(self) -> list[Network]:
        """One where both share their weights, else two."""
        return [self.theta.network] if self.shared else [self.theta.network, self.t.network]

    @property
    def shared(self) -> bool:
        """Whether both run on one set of weights, in one forward pass."""
        return self.theta.network is self.t.network

    @property
    def same(self) -> bool:
        """Whether both are the same model, so that only their prompts can tell them apart."""
        return self.shared and self.theta.adapter == self.t.adapter

    @property
    def longest(self) -> int | None:
        """The tokens, prompt and answer, that both models take in one row; None where they do not say."""
        return min((network.longest for network in self.networks if network.longest is not None), default=None)


def load_pair(
    model_theta: str,
    model_t: str | None = None,
    *,
    adapter_theta: str | None = None,
    adapter_t: str | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> Pair:
    """Loads two models: directories or hub ids; a LoRA adapter's directory stands for its base with it.

    Without `model_t` both have the weights of `model_theta`. Weights that both have are loaded once, whatever adapters
    they have. By default: `device`, a GPU where there is one; `dtype`, of the weights, bfloat16 there and float32 else.
    Raises `InputError` for what cannot be loaded or does not go together.
    """
    place = _device(device)
    kind = _dtype(dtype, place)
    base_theta, adapter_theta = _base_and_adapter(model_theta, adapter_theta)
    base_t, adapter_t = _base_and_adapter(model_t, adapter_t) if model_t is not None else (base_theta, adapter_t)
    if _place(base_theta) == _place(base_t):
        network, (name_theta, name_t) = _load(base_theta, [adapter_theta, adapter_t], place, kind)
        networks = network, network
    else:
        network_theta, (name_theta,) = _load(base_theta, [adapter_theta], place, kind)
        network_t, (name_t,) = _load(base_t, [adapter_t], place, kind)
        networks = network_theta, network_t
    homes = _tokenizer_home(base_theta, adapter_theta), _tokenizer_home(base_t, adapter_t)
    tokenizers = {home: _tokenizer(home) for home in homes}
    theta = Side(model_theta, networks[0], name_theta, tokenizers[homes[0]])
    t = Side(model_t or model_theta, networks[1], name_t, tokenizers[homes[1]])
    tokens = check_vocabularies(theta.tokenizer, t.tokenizer, names=(theta.name, t.name))
    return Pair(
        theta=theta,
        t=t,
        vocabulary=common_size(tokens, {network.name: network.ids for network in networks}),
        end_tokens=frozenset([*_end_tokens(theta), *_end_tokens(t)]),
        device=place,
    )


def _base_and_adapter(model: str, adapter: str | None) -> tuple[str, str | None]:
    if not (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
        return model, adapter
    if adapter is not None:
        raise InputError(f"{model} is an adapter, and {adapter} is given beside it: give its base, or it alone")
    return read_adapter(model).base, model


def _place(base: str) -> str:
    """Equal for two names of one directory."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base


def _load(
    base: str, adapters: Sequence[str | None], device: torch.device, dtype: torch.dtype
) -> tuple[Network, list[str]]:
    """One set of weights with the adapters that its sides have, and the name of each."""
    for adapter in filter(None, adapters):
        check_adapter(adapter, base)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the model {base}: {error}") from error
    places = [None if adapter is None else _place(adapter) for adapter in adapters]
    names = {place: f"adapter_{number}" for number, place in enumerate(dict.fromkeys(filter(None, places)))}
    if names:
        model = _adapted(model, names)
    chosen = [names[place] if place else BASE for place in places]
    return Network(model.to(device=device, dtype=dtype), base, mixed=len(set(chosen)) > 1), chosen


def _adapted(model: Any, names: dict[str, str]) -> Any:
    from peft import PeftModel

    (first, name), *others = names.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers by an old name
        adapted: Any = PeftModel.from_pretrained(model, first, adapter_name=name)
        for place, other in others:
            adapted.load_adapter(place, adapter_name=other)
    return adapted


def _tokenizer_home(base: str, adapter: str | None) -> str:
    """An adapter may have a tokenizer of its own, with another chat template."""
    own = adapter is not None and (Path(adapter).expanduser() / "tokenizer_config.json").is_file()
    return _place(adapter if adapter is not None and own else base)


def _tokenizer(home: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(home)
    except Exception as error:  # the hub, files and tokenizers raise types of their own
        raise InputError(f"cannot load the tokenizer of {home}: {error}") from error


def _end_tokens(side: Side) -> Iterable[int]:
    """Those of the generation configuration; where it has none, the tokenizer's."""
    given = getattr(side.network.model.generation_config, "eos_token_id", None)
    given = given if given is not None else side.tokenizer.eos_token_id
    return given if isinstance(given, list | tuple) else [] if given is None else [given]


def _device(device: str | None) -> torch.device:
    there = torch.cuda.is_available()
    if device is None:
        return torch.device("cuda" if there else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r}: there is no such kind: give cuda or cpu") from error
    if found.type == "cuda" and not there:
        raise InputError(f"device {device!r}: this machine shows no GPU: give cpu")
    return found


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: give one of {', '.join(DTYPES)}")
    return DTYPES[dtype]
