"""Who plays whom: policies as a user describes them, the agents that they play, and the servers that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.inference.adapter import Adapter
from rollmill.inference.backend import EndpointConfig, Served, ServedModel, client_config, own_server, running
from rollmill.inference.endpoints import Endpoint
from rollmill.inference.model_identity import model_identity
from rollmill.inference.multi_server import placed, side_by_side, started
from rollmill.inference.server import ServerConfig
from rollmill.jobs.episodes.override_values import PolicySpec
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.training.base_check import check_adapter


def policies_of(parameters: CollectEpisodes) -> list[PolicySpec]:
    """The policies that may play: those that `agent` names, and the one for the other agents.

    Raises `InputError` for a policy that there is not, and for an adapter on servers that run already.
    """
    names = [spec.name for spec in parameters.policies]
    for agent, name in parameters.cast.items():
        if name not in names:
            raise InputError(f"--agent {agent}={name}: there is no policy {name!r}: there are {', '.join(names)}")
    wanted = {*parameters.cast.values(), _for_the_rest(parameters)}
    specs = [spec for spec in parameters.policies if spec.name in wanted]
    for spec in specs:
        if spec.adapter and parameters.external:
            raise InputError(
                f"--policy {spec.name}: running servers decide what they serve: leave out adapter, and give the name "
                "under which they serve it as MODEL"
            )
    return specs


def cast_agents(specs: Sequence[PolicySpec], agents: Sequence[str], parameters: CollectEpisodes) -> dict[str, str]:
    """For each agent of an environment the name of the policy, one of `specs`, that plays it.

    Raises `InputError` for an agent that there is not, and for one that nobody plays.
    """
    asked = {f"--agent {agent}={name}": agent for agent, name in parameters.cast.items()}
    asked |= {f"--keep_agents {agent}": agent for agent in parameters.keep_agents}
    for flag, agent in asked.items():
        if agent not in agents:
            raise InputError(f"{flag}: {parameters.env_name} has no agent {agent!r}: there are {', '.join(agents)}")
    names = {spec.name for spec in specs}
    rest = _for_the_rest(parameters)
    cast = {agent: name for agent in agents if (name := parameters.cast.get(agent, rest)) in names}
    alone = [agent for agent in agents if agent not in cast]
    if alone:
        known = ", ".join(spec.name for spec in parameters.policies)
        raise InputError(f"--agent: nobody plays {', '.join(alone)}: give AGENT=POLICY for each, POLICY one of {known}")
    return cast


def policies_identity(specs: Sequence[PolicySpec]) -> dict[str, dict[str, Any]]:
    """What makes each policy the one it is, by its name: model, adapter, sampling.

    Raises `InputError` as `check_adapter` does.
    """
    return {spec.name: _identity(spec) for spec in specs}


def served_models(specs: Sequence[PolicySpec], parameters: CollectEpisodes) -> list[ServedModel]:
    """What servers of our own serve: one for each base model, with all adapters on it.

    Raises `InputError` as `check_adapter` does, and for one port for several servers.
    """
    bases: dict[str, list[PolicySpec]] = {}
    for spec in specs:
        if not (spec.demonstration or spec.base_urls or parameters.external):
            folder = Path(spec.model)
            bases.setdefault(str(folder.resolve()) if folder.is_dir() else spec.model, []).append(spec)
    if len(bases) > 1 and parameters.model_port is not None:
        raise InputError(
            f"--model_port {parameters.model_port}: there are {len(bases)} servers, for {', '.join(bases)}: leave it "
            "out, and each takes a free one"
        )
    return [_served_model(base, group, parameters, alone=len(bases) == 1) for base, group in bases.items()]


@contextmanager
def serving_cast(
    parameters: CollectEpisodes,
    specs: Sequence[PolicySpec],
    *,
    server: ServerConfig | None = None,
    endpoint: EndpointConfig | None = None,
    is_given_up: Callable[[], bool] | None = None,
    log_of: Callable[[Path], Path] = lambda path: path,
) -> Iterator[dict[str, Served]]:
    """Each policy that is a model, by its name, served for the time of the block.

    Policies on one base share a server, which writes to `log_of` its log's path. When it `is_given_up`, starts end at
    once, and models may not be there. Raises `ServingError` as `served` does, `InputError` as `served_models`.
    """
    found = _on_running_servers(parameters, specs, endpoint)
    models = served_models(specs, parameters)
    wanted = [model._replace(log_path=log_of(model.log_path)) for model in models]
    configs = placed(server or ServerConfig(), len(wanted))
    servers = [
        own_server(parameters, model, config, is_given_up=is_given_up)
        for model, config in zip(wanted, configs, strict=True)
    ]
    client = client_config(parameters, None)
    with started(servers, together=side_by_side(configs)):
        for model, own in zip(wanted, servers, strict=True):
            for name in (model.name, *model.also):
                found[name] = Served(endpoints=[own.endpoint], model=name, client=client)
        yield found


def _for_the_rest(parameters: CollectEpisodes) -> str | None:
    """The policy of agents that `agent` does not name: `model_path`'s, or the only one."""
    names = [spec.name for spec in parameters.policies]
    return parameters.model_name if parameters.model_name in names else names[0] if len(names) == 1 else None


def _identity(spec: PolicySpec) -> dict[str, Any]:
    if spec.demonstration:
        return {"model": spec.model, "sampling": {"seed": spec.sampling.seed}}
    adapter = _adapter(spec)
    return {
        "model": model_identity(spec.model),
        "adapter": adapter.identity if adapter else None,
        "sampling": spec.sampling.model_dump(),
    }


def _adapter(spec: PolicySpec) -> Adapter | None:
    return check_adapter(spec.adapter, spec.model) if spec.adapter else None


def _served_model(base: str, group: Sequence[PolicySpec], parameters: CollectEpisodes, *, alone: bool) -> ServedModel:
    first, *others = group
    run = parameters.directory.resolve().name
    name = run if alone else f"{run}_{first.name.replace('/', '_')}"
    return ServedModel(
        base,
        first.name,
        Path(parameters.log_dir) / f"{name}_vllm.log",
        _adapter(first),
        {spec.name: _adapter(spec) for spec in others},
    )


def _on_running_servers(
    parameters: CollectEpisodes, specs: Sequence[PolicySpec], endpoint: EndpointConfig | None
) -> dict[str, Served]:
    """The policies on servers that run; those on one server share what is known of it."""
    shared: dict[str, Endpoint] = {}
    found: dict[str, Served] = {}
    for spec in specs:
        if spec.demonstration or not (spec.base_urls or parameters.external):
            continue
        own = None if spec.base_urls else endpoint  # a block's key is for the block's servers
        urls = spec.base_urls or (own.base_urls if own else tuple(parameters.base_urls))
        served = running(urls, (spec.model, spec.name), client_config(parameters, own))
        endpoints = [shared.setdefault(one.base_url, one) for one in served.endpoints]
        found[spec.name] = served.model_copy(update={"endpoints": endpoints})
    return found
