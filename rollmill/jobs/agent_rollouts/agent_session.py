"""Where attempts run, where they are graded, and the model that plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ShardRun
from rollmill.generation.worker_session import log_of_worker, part_session
from rollmill.grading.grader import LocalGrader
from rollmill.grading.remote import TOKEN_VARIABLE as EVALUATION_TOKEN
from rollmill.grading.remote import RemoteGrader
from rollmill.grading.reward_schedule import read_ladder
from rollmill.inference.backend import EndpointConfig, Served, ServedModel, served
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.http_service import ServiceConfig, service_url, token_from_environment
from rollmill.inference.server import ServerConfig
from rollmill.jobs.agent_rollouts.maker import AgentRolloutsMaker
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.agent_rollouts.run import agent_settings
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.docker import DockerHost
from rollmill.sandboxes.remote import TOKEN_VARIABLE as SANDBOX_TOKEN
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import Limits, SandboxHost


def model_of(parameters: AgentRollouts) -> ServedModel:
    """The model that plays."""
    name = parameters.directory.name
    return ServedModel(parameters.model, name, Path(parameters.log_dir) / f"{name}_vllm.log")


@contextmanager
def agents_of(
    parameters: AgentRollouts,
    model: Served,
    *,
    sandboxes: ServiceConfig | None = None,
    evaluations: ServiceConfig | None = None,
) -> Iterator[AgentRolloutsMaker]:
    """What makes the run's attempts, for the time of the block; `sandboxes` and `evaluations` come from blocks.

    Raises `InputError` where a place, or the agent's configuration, cannot be used.
    """
    if parameters.docker_server:
        sandboxes = _service(parameters.docker_server, SANDBOX_TOKEN)
    if parameters.eval_server:
        evaluations = _service(parameters.eval_server, EVALUATION_TOKEN)
    with ExitStack() as closing:
        host = sandbox_host(parameters, sandboxes)
        closing.callback(host.close)
        grader: RemoteGrader | LocalGrader
        if evaluations is not None:
            grader = RemoteGrader(evaluations.address, token=evaluations.token)
        else:
            own = host
            if sandboxes is not None:  # the service keeps places for grading, so that agents cannot hold them all
                own = RemoteHost(sandboxes.address, token=sandboxes.token, for_grading=True)
                closing.callback(own.close)
            grader = LocalGrader(own, ladder=read_ladder(parameters.ladder), limits=limits_of(parameters))
        closing.callback(grader.close)
        yield AgentRolloutsMaker(
            ChatClient(EndpointPool(model.endpoints), model.client),
            host,
            grader,
            settings=agent_settings(parameters),
            model=model.model,
            sampling=parameters.sampling,
            limits=limits_of(parameters),
            workers=parameters.workers,
            closing=closing,
        )


def limits_of(parameters: AgentRollouts) -> Limits:
    """Of every sandbox."""
    return Limits(memory_mb=parameters.memory_mb, processes=parameters.processes)


def sandbox_host(parameters: AgentRollouts, service: ServiceConfig | None) -> SandboxHost:
    """Where attempts run: at the service, if there is one. Raises `InputError` where that cannot be."""
    if parameters.place == "docker":
        return DockerHost()
    if parameters.place == "bubblewrap":
        return BubblewrapHost(parameters.image_folder)
    assert service is not None
    return RemoteHost(service.address, token=service.token, start_config=agent_settings(parameters).start_config)


class AgentOrder(NamedTuple):
    """What a worker has to know beside the problems. Paths are absolute, and secrets in blocks."""

    parameters: AgentRollouts

    @property
    def directory(self) -> Path:
        """The run's."""
        return self.parameters.directory


@contextmanager
def agent_session(
    order: AgentOrder,
    part: ShardRun,
    is_given_up: Callable[[], bool],
    *,
    server: ServerConfig | None,
    endpoint: EndpointConfig | None,
    sandboxes: ServiceConfig | None,
    evaluations: ServiceConfig | None,
) -> Iterator[RolloutSession[ShardRun]]:
    """A session for a part of the run, on a worker: its sandboxes and its server are there, or at those that run.

    Raises as `served` and `agents_of` do, and `RunStoppedError` when it was given up before the model could be asked.
    """
    parameters = order.parameters
    wanted = model_of(parameters)
    wanted = wanted._replace(log_path=log_of_worker(wanted.log_path))
    with (
        served(parameters, wanted, server=server, endpoint=endpoint, is_given_up=is_given_up) as model,
        agents_of(parameters, model, sandboxes=sandboxes, evaluations=evaluations) as agents,
        part_session(part, agents, slots=parameters.workers, is_given_up=is_given_up) as session,
    ):
        yield session


def _service(address: str, variable: str) -> ServiceConfig:
    return ServiceConfig(address=service_url(address), token=token_from_environment(variable))
