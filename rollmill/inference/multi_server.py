"""Several servers of our own at a time: who gets which accelerator, and how they start and end together."""

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


def placed(config: ServerConfig, count: int) -> list[ServerConfig]:
    """Return the configuration of each of `count` servers.

    With a device for each, each has devices of its own; else they share one's memory in equal parts, and what
    `config` says of that wins.
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
    """Return what is laid over the environment of each of `count` processes, so that each has devices of its own.

    Nothing where there is no accelerator. Raises `InputError` for fewer devices than processes, and where `config`
    itself says which devices its servers take.
    """
    if not has_accelerator():
        return [{} for _ in range(count)]
    if VISIBLE in config.environment:
        raise InputError(
            f"--gpu_workers {count}: --server_block sets {VISIBLE}, so that all their servers would take the same: "
            "leave it out of the block"
        )
    devices = _devices(config)
    if len(devices) < count:
        raise InputError(f"--gpu_workers {count}: there are {len(devices)} GPUs here: give at most as many")
    return [{VISIBLE: share} for share in _shares(devices, count)]


def side_by_side(configs: Sequence[ServerConfig]) -> bool:
    """Return whether servers may start at the same time.

    They may where they share no device, whose memory each of them measures.
    """
    places = [config.environment.get(VISIBLE) for config in configs]
    return len(places) > 1 and None not in places and len(set(places)) == len(places)


@contextmanager
def started(servers: Sequence[ModelServer], *, together: bool) -> Iterator[None]:
    """Start all servers for the time of the block. Raises as the first one does that does not start."""
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
            for server in servers:
                server.give_up()
            raise
        finally:
            for start, server in starts.items():
                if start.exception() is None:
                    stack.push(server)


def _shares(devices: Sequence[str], count: int) -> list[str]:
    """Return as many devices for each, by name."""
    each = len(devices) // count
    return [",".join(devices[index * each : (index + 1) * each]) for index in range(count)]


def _devices(config: ServerConfig) -> list[str]:
    """Return the devices that servers may use, as `CUDAVISIBLE_DEVICES` names them; none where that cannot be told."""
    return visible_gpus(os.environ | config.environment)
