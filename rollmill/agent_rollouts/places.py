"""Where attempts run, where they are graded, and the model that plays."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from rollmill.agent_rollouts.maker import AgentRolloutsMaker
from rollmill.agent_rollouts.parameters import AgentRollouts
from rollmill.agent_rollouts.problems import graded_problem
from rollmill.agent_rollouts.run import agent_settings
from rollmill.grading.evaluation import Grader
from rollmill.grading.grader import LocalGrader
from rollmill.grading.ladder import read_ladder
from rollmill.grading.remote import TOKEN_VARIABLE as EVALUATION_TOKEN
from rollmill.grading.remote import RemoteGrader
from rollmill.rollouts.run import Run
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.docker import DockerHost
from rollmill.sandboxes.remote import TOKEN_VARIABLE as SANDBOX_TOKEN
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import Limits, SandboxHost
from rollmill.services.connection import ServiceConfig, service_url, token_from_environment
from rollmill.serving.client import ChatClient
from rollmill.serving.endpoints import EndpointPool
from rollmill.serving.served import Served, ServedModel


def model_of(parameters: AgentRollouts) -> ServedModel:
    """The model that plays."""
    name = parameters.directory.name
    return ServedModel(parameters.model, name, Path(parameters.log_dir) / f"{name}_vllm.log")


def agents_of(
    parameters: AgentRollouts,
    run: Run,
    served: Served,
    *,
    sandboxes: ServiceConfig | None = None,
    evaluations: ServiceConfig | None = None,
) -> AgentRolloutsMaker:
    """What makes the run's attempts; `sandboxes` and `evaluations` come from blocks.

    Raises `InputError` where a place, or the agent's configuration, cannot be used.
    """
    closing = ExitStack()
    if parameters.docker_server:
        sandboxes = _service(parameters.docker_server, SANDBOX_TOKEN)
    host = sandbox_host(parameters, sandboxes)
    closing.callback(host.close)
    if parameters.eval_server:
        evaluations = _service(parameters.eval_server, EVALUATION_TOKEN)
    grader: Grader
    if evaluations is not None:
        grader = remote = RemoteGrader(evaluations.address, token=evaluations.token)
        closing.callback(remote.close)
    else:
        own = host
        if sandboxes is not None:  # the service keeps places for grading, so that agents cannot hold them all
            own = RemoteHost(sandboxes.address, token=sandboxes.token, for_grading=True)
            closing.callback(own.close)
        grader = local_grader(parameters, run, own)
    return AgentRolloutsMaker(
        ChatClient(EndpointPool(served.endpoints), served.client),
        host,
        grader,
        settings=agent_settings(parameters),
        model=served.model,
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


def local_grader(parameters: AgentRollouts, run: Run, host: SandboxHost) -> LocalGrader:
    """Grades in this process. Raises `InputError` for a ladder that is none."""
    problems = {problem.instance_id: graded_problem(problem) for problem in run.problems()}
    return LocalGrader(problems, host, ladder=read_ladder(parameters.ladder), limits=limits_of(parameters))


def _service(address: str, variable: str) -> ServiceConfig:
    return ServiceConfig(address=service_url(address), token=token_from_environment(variable))
