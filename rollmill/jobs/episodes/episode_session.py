"""Where episodes are played: the environment, its tools, and the policies of its agents; here, or on a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rollmill.environments.paths import absolute_paths
from rollmill.environments.registry import find_environment
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ShardRun
from rollmill.generation.worker_session import log_of_worker, part_session
from rollmill.inference.backend import EndpointConfig, Served
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.http_service import ServiceConfig
from rollmill.inference.server import ServerConfig
from rollmill.jobs.episodes.episode import Cast
from rollmill.jobs.episodes.maker import EpisodesMaker, Stage
from rollmill.jobs.episodes.override_values import PolicySpec, as_pairs
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.pictures import PictureFolder
from rollmill.jobs.episodes.policies import DemonstrationPolicy, ModelPolicy, Policy
from rollmill.jobs.episodes.policy_assignment import cast_agents, policies_of, serving_cast
from rollmill.jobs.episodes.run import environment_settings
from rollmill.jobs.episodes.tools import open_tools

_MOST_THREADS = 64


def episodes_of(
    parameters: CollectEpisodes,
    specs: Sequence[PolicySpec],
    directory: Path,
    served: Mapping[str, Served],
    *,
    sandboxes: ServiceConfig | None = None,
    search: ServiceConfig | None = None,
) -> EpisodesMaker:
    """What plays the episodes of the run in `directory`.

    `specs` are the policies that may play, `served` holds the models by policy, `sandboxes` and `search` come from
    blocks. Raises `InputError` where the environment cannot be used.
    """
    environment = find_environment(parameters.env_name)
    settings = environment_settings(parameters, environment)
    clients = {name: ChatClient(EndpointPool(model.endpoints), model.client) for name, model in served.items()}
    policies = {spec.name: _policy(spec, served, clients) for spec in specs}
    agents = cast_agents(specs, environment.agent_names(settings), parameters)
    return EpisodesMaker(
        Stage(environment, settings, parameters.seed, {"max_tokens": parameters.max_tokens}),
        Cast({agent: policies[name] for agent, name in agents.items()}, parameters.max_turns, PictureFolder(directory)),
        clients=list(clients.values()),
        open_tools=partial(open_tools, parameters, environment.needs, settings, sandboxes=sandboxes, search=search),
        threads=min(parameters.concurrency, _MOST_THREADS),
    )


class EpisodesOrder(NamedTuple):
    """What a worker has to know beside the problems. Paths are absolute, and secrets in blocks."""

    parameters: CollectEpisodes
    specs: tuple[PolicySpec, ...]

    @property
    def directory(self) -> Path:
        """The run's."""
        return self.parameters.directory


def episodes_order(parameters: CollectEpisodes) -> EpisodesOrder:
    """The part of a call in it. Raises `InputError` for an environment, a setting or a policy that is none."""
    settings = environment_settings(parameters, find_environment(parameters.env_name))
    there = parameters.model_copy(
        update={
            "env": as_pairs(parameters.env_settings | absolute_paths(settings)),
            "output_dir": str(Path(parameters.output_dir).absolute()),
            "log_dir": str(Path(parameters.log_dir).absolute()),
        }
    )
    specs = policies_of(parameters)
    return EpisodesOrder(there, tuple(_anywhere(spec, external=parameters.external) for spec in specs))


@contextmanager
def episodes_session(
    order: EpisodesOrder,
    part: ShardRun,
    is_given_up: Callable[[], bool],
    *,
    server: ServerConfig | None,
    endpoint: EndpointConfig | None,
    sandboxes: ServiceConfig | None,
    search: ServiceConfig | None,
) -> Iterator[RolloutSession[ShardRun]]:
    """A session for a part of the run, on a worker: with servers there, or those that are running.

    Raises `ServingError` and `InputError` as `serving_cast` and `episodes_of` do, and `RunStoppedError` when it was
    given up before the models could be asked.
    """
    parameters, specs = order.parameters, order.specs
    serving = serving_cast(
        parameters, specs, server=server, endpoint=endpoint, is_given_up=is_given_up, log_of=log_of_worker
    )
    with serving as served:
        maker = episodes_of(parameters, specs, part.directory, served, sandboxes=sandboxes, search=search)
        with part_session(part, maker, slots=parameters.concurrency, is_given_up=is_given_up) as session:
            yield session


def _anywhere(spec: PolicySpec, *, external: bool) -> PolicySpec:
    """The policy as a process in another folder finds it; a running server's name for it stays."""
    folder = Path(spec.model)
    here = folder.is_dir() and not (spec.demonstration or spec.base_urls or external)
    return spec._replace(
        model=str(folder.absolute()) if here else spec.model,
        adapter=spec.adapter and str(Path(spec.adapter).absolute()),
    )


def _policy(spec: PolicySpec, served: Mapping[str, Served], clients: Mapping[str, ChatClient]) -> Policy:
    if spec.demonstration:
        return DemonstrationPolicy(spec.name, spec.model)
    return ModelPolicy(spec.name, clients[spec.name], model=served[spec.name].model, sampling=spec.sampling)
