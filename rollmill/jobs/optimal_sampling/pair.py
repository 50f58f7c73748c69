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
    """Device of pi_theta, where q is computed; pi_t may be on another one."""
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


def load_pair(
    spec: PairSpec,
    *,
    device: str | None = None,
    device_t: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> Pair:
    """Load two models; weights that both share are loaded once.

    Raises `InputError` for what cannot be loaded, also where memory runs out, for a `device_t` of shared weights, and
    as `choose_device` does.

    Args:
        spec: The two models.
        device: Device of pi_theta; None for a GPU where there is one.
        device_t: Device of pi_t; None for pi_theta's, or for the second GPU where both devices are None, this process
            sees two GPUs, and the models do not share their weights.
        dtype: Dtype of the weights; None for bfloat16 on a GPU, float32 on a CPU.
    """
    devices = _devices(spec, device, device_t)
    torch_dtype = _dtype(dtype, devices[0])
    used = _describe(devices, torch_dtype)
    _log.info("loading the models on %s", use_line(used))
    try:
        return _load_both(spec, devices, torch_dtype, used)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        names = " and ".join(dict.fromkeys((spec.theta.base, spec.t.base)))
        has_two = devices[0] != devices[1]
        advice = _memory_advice(torch_dtype, more_devices=not spec.shared and not has_two and devices[0].type == "cuda")
        raise InputError(f"memory ran out while {names} was loaded on {use_line(used)}: {advice}") from None


def _load_both(
    spec: PairSpec, devices: tuple[torch.device, torch.device], dtype: torch.dtype, used: dict[str, Any]
) -> Pair:
    """Load the weights of both models.

    Args:
        spec: The two models.
        devices: Device of theta, and of t.
        dtype: Dtype of the weights.
        used: Hardware and dtype, as `describe_use` returns them.
    """
    theta, t = spec.theta, spec.t
    if spec.shared:
        network, (name_theta, name_t) = _load(theta.base, [theta.adapter, t.adapter], devices[0], dtype)
        networks = network, network
    else:
        network_theta, (name_theta,) = _load(theta.base, [theta.adapter], devices[0], dtype)
        network_t, (name_t,) = _load(t.base, [t.adapter], devices[1], dtype)
        networks = network_theta, network_t
    return Pair(
        theta=PairMember(networks[0], name_theta),
        t=PairMember(networks[1], name_t),
        vocabulary=common_size(spec.vocabulary.size, {network.name: network.ids for network in networks}),
        excluded=spec.vocabulary.excluded,
        end_tokens=spec.end_tokens,
        device=devices[0],
        used=used,
    )


def _memory_advice(dtype: torch.dtype, *, more_devices: bool) -> str:
    """Return advice for less memory than weights of this dtype take; with `more_devices`, also on a second GPU."""
    ways = ["--dtype bfloat16"] if dtype == torch.float32 else []
    ways += ["a GPU to each model (--device cuda:0 --device_t cuda:1)"] if more_devices else []
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


def _devices(spec: PairSpec, device: str | None, device_t: str | None) -> tuple[torch.device, torch.device]:
    """Return the device of theta, and that of t. Arguments as those of `load_pair`."""
    theta = _device(device)
    if device_t is not None:
        t = _device(device_t)
        if spec.shared and (t.type, t.index or 0) != (theta.type, theta.index or 0):
            raise InputError(
                f"device_t {device_t!r}: both models have the weights of {spec.theta.base}, which are loaded once, on "
                f"{theta}: leave it out"
            )
        return theta, t
    if device is None and theta.type == "cuda" and not spec.shared and torch.cuda.device_count() > 1:
        return torch.device("cuda:0"), torch.device("cuda:1")
    return theta, theta


def _describe(devices: tuple[torch.device, torch.device], dtype: torch.dtype) -> dict[str, Any]:
    """Return hardware and dtype as `describe_use` does; of two devices with the names of both."""
    theta, t = (describe_use(str(device), str(dtype)) for device in devices)
    if devices[0] == devices[1]:
        return theta
    kinds = dict.fromkeys(device.type for device in devices)
    return {**theta, "device": " and ".join(kinds), "count": 2} | (
        {"names": [*theta.get("names", []), *t.get("names", [])]} if "cuda" in kinds else {}
    )


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
