"""Places the sampling processes of a call, and checks that torch can use their GPUs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from rollmill.errors import InputError
from rollmill.inference.devices import AMD, KIND, has_only_amd, nvidia_files, refusal, wants_cpu
from rollmill.inference.gpu_reservation import free_gpus
from rollmill.inference.placement import Placement, in_use_message, place_samplers
from rollmill.inference.visible_gpus import Gpu, find_gpus
from rollmill.inference.vllm_install import ask_torch_of
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling


def place_processes(parameters: OptimalSampling, environment: Mapping[str, str] | None = None) -> Placement:
    """Return the GPUs of each process. Raises `InputError` as `place_samplers` does, and for a named one in use."""
    variables, devices = _variables(parameters, environment), _devices(parameters)
    free = free_gpus(variables)
    if not any(":" in device for device in devices):
        return place_samplers(free, parameters.gpu_workers, devices)
    placement = place_samplers(find_gpus(variables), parameters.gpu_workers, devices)
    taken = [gpu for gpu in free.in_use if any(gpu.name in names for names in placement.processes)]
    if taken:
        raise InputError(in_use_message(taken))
    return placement


def gpus_of_process(devices: Sequence[str], *, two_models: bool) -> list[Gpu]:
    """Return the GPUs that this process uses, of those that it sees.

    Args:
        devices: Device of pi_theta and, if it is named, of pi_t.
        two_models: Whether both have weights of their own: on devices that are not named they take two GPUs, if this
            process sees as many.
    """
    visible = find_gpus().gpus
    indices = {int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")}
    if "auto" in devices:
        indices |= set(range(2 if two_models else 1))
    return [gpu for index, gpu in enumerate(visible) if index in indices]


def check_torch(parameters: OptimalSampling, environment: Mapping[str, str] | None = None) -> None:
    """Check that torch can use the GPUs, in a process of its own: this one then does not import torch.

    vLLM's backend is not checked: it has a torch of its own. Raises `InputError` as `choose_device` does.
    """
    variables = _variables(parameters, environment)
    if parameters.backend != "transformers" or wants_cpu(variables) or not _may_use_gpu(parameters):
        return
    if has_only_amd():
        raise InputError(AMD)
    if nvidia_files():
        verdict = ask_torch_of(sys.executable, variables)
        if verdict.reason is not None:
            raise InputError(refusal(verdict, sys.executable))


def _variables(parameters: OptimalSampling, environment: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment; a named GPU counts more than `ROLLMILL_KIND`."""
    variables = dict(os.environ if environment is None else environment)
    if any(device.startswith("cuda") for device in _devices(parameters)):
        variables.pop(KIND, None)
    return variables


def _devices(parameters: OptimalSampling) -> tuple[str, ...]:
    return (parameters.device,) if parameters.device_t == "auto" else (parameters.device, parameters.device_t)


def _may_use_gpu(parameters: OptimalSampling) -> bool:
    return any(device.startswith(("auto", "cuda")) for device in _devices(parameters))
