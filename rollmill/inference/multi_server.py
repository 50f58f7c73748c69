"""Several vLLM servers on this machine: assign GPUs to them, start and end them together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager

from rollmill.errors import InputError
from rollmill.inference.devices import VISIBLE, visible_gpus
from rollmill.inference.machine import has_accelerator
from rollmill.inference.server import ModelServer, ServerConfig

_MEMORY_SHARE = 0.9


def assign_devices(config: ServerConfig, count: int) -> list[ServerConfig]:
    """Return the configuration of each of `count` servers.

    With enough GPUs each gets its own. Otherwise they share the memory of one in equal parts, unless the arguments in
    `config` set `--gpu-memory-utilization`.
    """
    devices = _devices(config)
    if count == 1 or not has_accelerator(os.environ | config.environment):
        return [config] * count
    if len(devices) >= count:
        groups = _shares(devices, count)
        return [config.model_copy(update={"environment": {**config.environment, VISIBLE: group}}) for group in groups]
    share = ("--gpu-memory-utilization", f"{_MEMORY_SHARE / count:.3f}")
    return [config.model_copy(update={"arguments": (*share, *config.arguments)})] * count


def device_shares(count: int, config: ServerConfig) -> list[dict[str, str]]:
    """Return additional environment variables for each of `count` processes, with which each has its own GPUs.

    They are empty on a machine without GPUs. Raises `InputError` for fewer GPUs than processes, and where `config` sets
    the GPUs of its servers.
    """
    if not has_accelerator():
        return [{} for _ in range(count)]
    if VISIBLE in config.environment:
        raise InputError(
            f"--gpu_workers {count}: --server_block sets {VISIBLE}, so that all servers would use the same GPUs: "
            "leave it out of the block"
        )
    devices = _devices(config)
    if len(devices) < count:
        raise InputError(f"--gpu_workers {count}: there are {len(devices)} GPUs here: give at most as many")
    return [{VISIBLE: share} for share in _shares(devices, count)]


def can_start_together(configs: Sequence[ServerConfig]) -> bool:
    """Return whether servers may start at the same time: they share no GPU.

    vLLM measures the free memory of its GPU at its start, which another one that starts there would distort.
    """
    devices = [config.environment.get(VISIBLE) for config in configs]
    return len(devices) > 1 and None not in devices and len(set(devices)) == len(devices)


@contextmanager
def start_servers(servers: Sequence[ModelServer], *, together: bool) -> Iterator[None]:
    """Start all servers; end them at the end of the block. Raises the error of the first that does not start."""
    with ExitStack() as stack:
        if together:
            _start_together(servers, stack)
        else:
            for server in servers:
                stack.enter_context(server)
        yield


def _start_together(servers: Sequence[ModelServer], stack: ExitStack) -> None:
    with ThreadPoolExecutor(len(servers)) as pool:
        starts = {pool.submit(server.__enter__): server for server in servers}
        try:
            for start in as_completed(starts):
                start.result()
        except BaseException:
            # One has failed, or the user interrupts: the others must not go on loading for minutes.
            for server in servers:
                server.give_up()
            raise
        finally:
            for start, server in starts.items():
                if start.exception() is None:
                    stack.push(server)


def _shares(devices: Sequence[str], count: int) -> list[str]:
    """Divide devices evenly; return a comma-separated list of names for each share."""
    each = len(devices) // count
    return [",".join(devices[index * each : (index + 1) * each]) for index in range(count)]


def _devices(config: ServerConfig) -> list[str]:
    """Return the GPUs that servers may use, as `CUDA_VISIBLE_DEVICES` names them; empty where they are not known."""
    return visible_gpus(os.environ | config.environment)
