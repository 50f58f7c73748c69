"""The two models of a mixture, loaded: two sets of weights, or one set that both use in one forward pass.

Imports torch, transformers and, for adapters, PEFT.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from rollmill.errors import InputError
from rollmill.inference.devices import choose_device, describe_use, use_line
from rollmill.jobs.optimal_sampling.model_spec import ChosenPair
from rollmill.jobs.optimal_sampling.network import BASE, Network
from rollmill.jobs.optimal_sampling.vocabulary import common_size
from rollmill.jobs.training.advice import is_out_of_memory

_log = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class PairMember:
    """One of the two models."""

    network: Network
    adapter: str
    """Of the network's adapters the one that this side has; `BASE` for none."""


@dataclass(frozen=True)
class Pair:
    """Two models with one vocabulary."""

    theta: PairMember
    t: PairMember
    vocabulary: int
    """Ids from 0 to this are drawn from."""
    end_tokens: frozenset[int]
    """Either model's."""
    device: torch.device
    used: dict[str, Any]
    """What they run on; see `describe_use`."""
    excluded: tuple[int, ...] = ()
    """Ids that are not drawn; see `Vocabulary`."""

    @property
    def networks(self) -> list[Network]:
        """Return one network where both share their weights, else two."""
        return [self.theta.network] if self.shared else [self.theta.network, self.t.network]

    @property
    def shared(self) -> bool:
        """Tell whether both run on one set of weights, in one forward pass."""
        return self.theta.network is self.t.network

    @property
    def same(self) -> bool:
        """Tell whether both are the same model, so that only their prompts can tell them apart."""
        return self.shared and self.theta.adapter == self.t.adapter

    @property
    def longest(self) -> int | None:
        """Return how many tokens, prompt and answer, both models take in one row; None where they do not say."""
        return min((network.longest for network in self.networks if network.longest is not None), default=None)


def load_pair(chosen: ChosenPair, *, device: str | None = None, dtype: str | torch.dtype | None = None) -> Pair:
    """Load two models. Weights that both have are loaded once, whatever adapters they have.

    By default: `device`, a GPU where there is one; `dtype`, of the weights, bfloat16 there and float32 else. Raises
    `InputError` for what cannot be loaded, for want of memory too, and as `choose_device` does.
    """
    torch_device = _device(device)
    kind = _dtype(dtype, torch_device)
    used = describe_use(str(torch_device), str(kind))
    _log.info("loading the models on %s", use_line(used))
    try:
        return _load_both(chosen, torch_device, kind, used)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        names = " and ".join(dict.fromkeys((chosen.theta.base, chosen.t.base)))
        raise InputError(f"memory ran out while {names} was loaded on {use_line(used)}: {_smaller(kind)}") from None


def _load_both(chosen: ChosenPair, device: torch.device, kind: torch.dtype, used: dict[str, Any]) -> Pair:
    theta, t = chosen.theta, chosen.t
    if chosen.shared:
        network, (name_theta, name_t) = _load(theta.base, [theta.adapter, t.adapter], device, kind)
        networks = network, network
    else:
        network_theta, (name_theta,) = _load(theta.base, [theta.adapter], device, kind)
        network_t, (name_t,) = _load(t.base, [t.adapter], device, kind)
        networks = network_theta, network_t
    return Pair(
        theta=PairMember(networks[0], name_theta),
        t=PairMember(networks[1], name_t),
        vocabulary=common_size(chosen.vocabulary.size, {network.name: network.ids for network in networks}),
        excluded=chosen.vocabulary.excluded,
        end_tokens=chosen.end_tokens,
        device=device,
        used=used,
    )


def _smaller(dtype: torch.dtype) -> str:
    """Return what takes less memory than weights of this type."""
    ways = ["--dtype bfloat16"] if dtype == torch.float32 else []
    ways += ["smaller models", "adapters of one model, which is then loaded once"]
    return f"give {', or '.join(ways)}; or free the device (nvidia-smi shows who holds it)"


def _load(
    base: str, adapters: Sequence[str | None], device: torch.device, dtype: torch.dtype
) -> tuple[Network, list[str]]:
    """Load one set of weights with the adapters that its sides have; return it with the name of each.

    Args:
        base: Directory or hub id of the weights.
        adapters: The adapter of each side; None for the base itself.
        device: Where the weights go.
        dtype: The weights' type.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"cannot load the model {base}: {error}") from error
    names = {path: f"adapter_{number}" for number, path in enumerate(dict.fromkeys(filter(None, adapters)))}
    if names:
        model = _adapted(model, names)
    chosen = [names[path] if path else BASE for path in adapters]
    return Network(model.to(device=device, dtype=dtype), base, mixed=len(set(chosen)) > 1), chosen


def _adapted(model: Any, names: dict[str, str]) -> Any:
    from peft import PeftModel

    (first, name), *others = names.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers by an old name
        adapted: Any = PeftModel.from_pretrained(model, first, adapter_name=name)
        for path, other in others:
            adapted.load_adapter(path, adapter_name=other)
    return adapted


def _device(device: str | None) -> torch.device:
    if device is None:
        return torch.device(choose_device())
    try:
        torch_device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r}: there is no such kind: give cuda or cpu") from error
    if torch_device.type == "cuda":
        choose_device(device)
    return torch_device


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: give one of {', '.join(DTYPES)}")
    return DTYPES[dtype]
