"""Several vLLM servers on this machine: assign GPUs to them, start and end them together."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager

from rollmill.inference.devices import VISIBLE
from rollmill.inference.gpu_reservation import free_gpus, reserve_gpus
from rollmill.inference.placement import ServerPlace, place_servers
from rollmill.inference.server import ModelServer, ServerConfig
from rollmill.inference.server_size import MEMORY, server_size
from rollmill.inference.visible_gpus import VisibleGpus


@contextmanager
def assigned_devices(config: ServerConfig, count: int, vllm_args: str = "") -> Iterator[list[ServerConfig]]:
    """Yield the configuration of each of `count` servers of this process, with its GPUs, reserved during the block.

    `vllm_args` are the arguments that follow those in `config`, in shell syntax. Raises `InputError` as `place_servers`
    and `reserve_gpus` do.
    """
    size = server_size((*config.arguments, *shlex.split(vllm_args)))
    variables, shared = os.environ | config.environment, size.memory is not None
    gpus = free_gpus(variables, shared=shared)
    assignments = place_servers(gpus, count, size)
    used = {name for assignment in assignments for name in assignment.gpus}
    with reserve_gpus([gpu for gpu in gpus.gpus if gpu.name in used], shared=shared, environment=variables):
        yield [_placed(config, gpus, assignment) for assignment in assignments]


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
