"""Several vLLM servers on this machine: assign GPUs to them, start and end them together."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager

from rollmill.inference.devices import VISIBLE
from rollmill.inference.placement import ServerPlace, place_servers
from rollmill.inference.server import ModelServer, ServerConfig
from rollmill.inference.server_size import MEMORY, server_size
from rollmill.inference.visible_gpus import VisibleGpus, find_gpus


def assign_devices(config: ServerConfig, count: int, vllm_args: str = "") -> list[ServerConfig]:
    """Return the configuration of each of `count` servers that this process starts, with its GPUs.

    `vllm_args` are the arguments that follow those in `config`, in shell syntax. Raises `InputError` as `place_servers`
    does.
    """
    gpus = find_gpus(os.environ | config.environment)
    assignments = place_servers(gpus, count, server_size((*config.arguments, *shlex.split(vllm_args))))
    return [_placed(config, gpus, assignment) for assignment in assignments]


def _placed(config: ServerConfig, gpus: VisibleGpus, assignment: ServerPlace) -> ServerConfig:
    shown = gpus.environment(assignment.gpus) if assignment.gpus else {}
    share = () if assignment.memory is None else (MEMORY, f"{assignment.memory:.3f}")
    return config.model_copy(
        update={"environment": {**config.environment, **shown}, "arguments": (*share, *config.arguments)}
    )


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
