"""Where episodes are played: the environment, its tools, and the policies of its agents."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from rollmill.environments.registry import find_environment
from rollmill.episodes.casting import cast_agents, policies_of
from rollmill.episodes.maker import EpisodesMaker, Stage
from rollmill.episodes.parameters import CollectEpisodes
from rollmill.episodes.pictures import PictureFolder
from rollmill.episodes.playing import Cast
from rollmill.episodes.policies import DemonstrationPolicy, ModelPolicy, Policy
from rollmill.episodes.run import environment_settings
from rollmill.episodes.settings import PolicySpec
from rollmill.episodes.tools import open_tools
from rollmill.rollouts.run import Run
from rollmill.services.connection import ServiceConfig
from rollmill.serving.client import ChatClient
from rollmill.serving.endpoints import EndpointPool
from rollmill.serving.served import Served

_MOST_THREADS = 64


def episodes_of(
    parameters: CollectEpisodes,
    run: Run,
    served: Mapping[str, Served],
    *,
    sandboxes: ServiceConfig | None = None,
    search: ServiceConfig | None = None,
) -> EpisodesMaker:
    """What plays the run's episodes; `served` holds the models by policy, `sandboxes` and `search` come from blocks.

    Raises `InputError` where the environment or a tool cannot be used.
    """
    environment = find_environment(parameters.env_name)
    settings = environment_settings(parameters, environment)
    specs = policies_of(parameters)
    clients = {name: ChatClient(EndpointPool(model.endpoints), model.client) for name, model in served.items()}
    policies = {spec.name: _policy(spec, served, clients) for spec in specs}
    agents = cast_agents(specs, environment.agent_names(settings), parameters)
    with ExitStack() as opening:
        tools = open_tools(parameters, environment.needs, settings, opening, sandboxes=sandboxes, search=search)
        closing = opening.pop_all()
    return EpisodesMaker(
        Stage(environment, settings, parameters.seed, {"max_tokens": parameters.max_tokens}),
        Cast(
            {agent: policies[name] for agent, name in agents.items()},
            parameters.max_turns,
            PictureFolder(run.directory),
        ),
        clients=list(clients.values()),
        tools=tools,
        closing=closing,
        threads=min(parameters.concurrency, _MOST_THREADS),
    )


def _policy(spec: PolicySpec, served: Mapping[str, Served], clients: Mapping[str, ChatClient]) -> Policy:
    if spec.demonstration:
        return DemonstrationPolicy(spec.name, spec.model)
    return ModelPolicy(spec.name, clients[spec.name], model=served[spec.name].model, sampling=spec.sampling)
