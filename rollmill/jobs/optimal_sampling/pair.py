"""Loads the two models of a mixture: two sets of weights, or one set that both use in one forward pass.

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
from rollmill.jobs.optimal_sampling.model_spec import PairSpec
from rollmill.jobs.optimal_sampling.network import BASE, Network
from rollmill.jobs.optimal_sampling.vocabulary import common_size
from rollmill.jobs.training.advice import is_out_of_memory

_log = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class PairMember:
    """One of the two models, loaded."""

    network: Network
    adapter: str
    """Name of this model's adapter in the network; `BASE` for none."""


@dataclass(frozen=True)
class Pair:
    """Two loaded models with a common vocabulary."""

    theta: PairMember
    t: PairMember
    vocabulary: int
    """Number of token ids that are drawn from, from 0 on."""
    end_tokens: frozenset[int]
    """Token ids that end an answer, of either model."""
    device: torch.device
    used: dict[str, Any]
    """Hardware and dtype; see `describe_use`."""
    excluded: tuple[int, ...] = ()
    """Token ids that are never drawn; see `Vocabulary`."""

    @property
    def networks(self) -> list[Network]:
        """One network where both share their weights, else two."""
        return [self.theta.network] if self.shared else [self.theta.network, self.t.network]

    @property
    def shared(self) -> bool:
        """True if both use one set of weights, in one forward pass."""
        return self.theta.network is self.t.network

    @property
    def same(self) -> bool:
        """True if both are the same model with the same adapter, so that only their prompts can differ."""
        return self.shared and self.theta.adapter == self.t.adapter

    @property
    def context_length(self) -> int | None:
        """Context length: tokens of prompt and answer that both models take; None for no limit."""
        return min(
            (network.context_length for network in self.networks if network.context_length is not None), default=None
        )


def load_pair(spec: PairSpec, *, device: str | None = None, dtype: str | torch.dtype | None = None) -> Pair:
    """Load two models; weights that both share are loaded once.

    `device` None is a GPU where there is one; `dtype` None is bfloat16 there, and float32 on a CPU. Raises `InputError`
    for what cannot be loaded, also where memory runs out, and as `choose_device` does.
    """
    torch_device = _device(device)
    torch_dtype = _dtype(dtype, torch_device)
    used = describe_use(str(torch_device), str(torch_dtype))
    _log.info("loading the models on %s", use_line(used))
    try:
        return _load_both(spec, torch_device, torch_dtype, used)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        names = " and ".join(dict.fromkeys((spec.theta.base, spec.t.base)))
        raise InputError(
            f"memory ran out while {names} was loaded on {use_line(used)}: {_memory_advice(torch_dtype)}"
        ) from None


def _load_both(spec: PairSpec, device: torch.device, dtype: torch.dtype, used: dict[str, Any]) -> Pair:
    """Load the weights of both models.

    Args:
        spec: The two models.
        device: Device of the weights.
        dtype: Dtype of the weights.
        used: Hardware and dtype, as `describe_use` returns them.
    """
    theta, t = spec.theta, spec.t
    if spec.shared:
        network, (name_theta, name_t) = _load(theta.base, [theta.adapter, t.adapter], device, dtype)
        networks = network, network
    else:
        network_theta, (name_theta,) = _load(theta.base, [theta.adapter], device, dtype)
        network_t, (name_t,) = _load(t.base, [t.adapter], device, dtype)
        networks = network_theta, network_t
    return Pair(
        theta=PairMember(networks[0], name_theta),
        t=PairMember(networks[1], name_t),
        vocabulary=common_size(spec.vocabulary.size, {network.name: network.ids for network in networks}),
        excluded=spec.vocabulary.excluded,
        end_tokens=spec.end_tokens,
        device=device,
        used=used,
    )


def _memory_advice(dtype: torch.dtype) -> str:
    """Return advice for less memory than weights of this dtype take."""
    ways = ["--dtype bfloat16"] if dtype == torch.float32 else []
    ways += ["smaller models", "adapters of one model, which is then loaded once"]
    return f"give {', or '.join(ways)}; or free the device (nvidia-smi shows who holds it)"


def _load(
    base: str, adapters: Sequence[str | None], device: torch.device, dtype: torch.dtype
) -> tuple[Network, list[str]]:
    """Load one set of weights with adapters; return the network, and the name of each side's adapter in it.

    Args:
        base: Directory or hub id of the weights.
        adapters: Directory of each side's adapter; None for the base itself.
        device: Device of the weights.
        dtype: Dtype of the weights.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"cannot load the model {base}: {error}") from error
    names = {path: f"adapter_{number}" for number, path in enumerate(dict.fromkeys(filter(None, adapters)))}
    if names:
        model = _load_adapters(model, names)
    side_names = [names[path] if path else BASE for path in adapters]
    return Network(model.to(device=device, dtype=dtype), base, mixed=len(set(side_names)) > 1), side_names


def _load_adapters(model: Any, names: dict[str, str]) -> Any:
    from peft import PeftModel

    (first, name), *others = names.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a deprecated name of transformers
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
        raise InputError(f"device {device!r}: there is no such device: give cuda or cpu") from error
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
