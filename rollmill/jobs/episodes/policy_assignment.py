"""Assigns policies to agents, and starts or finds the servers that the policies need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rollmill.errors import InputError
from rollmill.inference.adapter import Adapter
from rollmill.inference.backend import (
    EndpointConfig,
    Served,
    ServedModel,
    local_client_config,
    make_local_server,
    use_running_servers,
)
from rollmill.inference.endpoints import Endpoint
from rollmill.inference.model_identity import model_identity
from rollmill.inference.multi_server import assigned_devices, can_start_together, start_servers
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.server import ServerConfig
from rollmill.inference.trial import TrialRequest
from rollmill.jobs.episodes.override_values import PolicySpec
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.training.base_check import check_adapter


def policies_of(parameters: CollectEpisodes) -> list[PolicySpec]:
    """Return the policies that agents may have: those that `agent` names, and the default policy.

    Raises `InputError` for an unknown policy, and for an adapter on running servers.
    """
    names = [spec.name for spec in parameters.policies]
    for agent, name in parameters.agent_policies.items():
        if name not in names:
            raise InputError(f"--agent {agent}={name}: there is no policy {name!r}: there are {', '.join(names)}")
    used = {*parameters.agent_policies.values(), _default_policy(parameters)}
    specs = [spec for spec in parameters.policies if spec.name in used]
    for spec in specs:
        if spec.adapter and parameters.external:
            raise InputError(
                f"--policy {spec.name}: running servers decide what they serve: leave out adapter, and give the name "
                "under which they serve it as MODEL"
            )
    return specs


def assign_policies(specs: Sequence[PolicySpec], agents: Sequence[str], parameters: CollectEpisodes) -> dict[str, str]:
    """Return the name of the policy, one of `specs`, that plays each agent of an environment.

    Raises `InputError` for an unknown agent, and for one without a policy.
    """
    agents_by_flag = {f"--agent {agent}={name}": agent for agent, name in parameters.agent_policies.items()}
    agents_by_flag |= {f"--keep_agents {agent}": agent for agent in parameters.keep_agents}
    for flag, agent in agents_by_flag.items():
        if agent not in agents:
            raise InputError(f"{flag}: {parameters.env_name} has no agent {agent!r}: there are {', '.join(agents)}")
    names = {spec.name for spec in specs}
    default = _default_policy(parameters)
    agent_policies = {
        agent: name for agent in agents if (name := parameters.agent_policies.get(agent, default)) in names
    }
    unassigned = [agent for agent in agents if agent not in agent_policies]
    if unassigned:
        known = ", ".join(spec.name for spec in parameters.policies)
        raise InputError(
            f"--agent: no policy for {', '.join(unassigned)}: give AGENT=POLICY for each, POLICY one of {known}"
        )
    return agent_policies


def policies_identity(specs: Sequence[PolicySpec]) -> dict[str, dict[str, Any]]:
    """Return the identity of each policy, by its name: model, adapter, sampling.

    Raises `InputError` as `check_adapter` does.
    """
    return {spec.name: _identity(spec) for spec in specs}


def served_models(specs: Sequence[PolicySpec], parameters: CollectEpisodes) -> list[ServedModel]:
    """Return the models of the servers to start: one for each base model, with all adapters on it.

    Raises `InputError` as `check_adapter` does, and where one port is given for several servers.
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
    changes: Mapping[str, RequestChanges] = MappingProxyType({}),
) -> Iterator[dict[str, Served]]:
    """Serve each policy that is a model for the time of the block; yield the served models by policy.

    Policies on one base share a server. When `is_given_up()`, the start of servers ends at once, and models may be
    missing. Raises `ServingError` as `serve_model` does, and `InputError` as `served_models` and `assigned_devices` do.

    Args:
        parameters: The call's parameters.
        specs: The policies of the agents.
        server: Configuration of the servers to start; None for the default.
        endpoint: Running servers of a block; None without a block.
        is_given_up: Returns True when nobody waits any more.
        log_of: Maps the usual path of a log to the path that this process writes.
        changes: Changes that running servers need in a policy's requests, by its name.
    """
    served = _on_running_servers(parameters, specs, endpoint, changes)
    models = served_models(specs, parameters)
    models = [model._replace(log_path=log_of(model.log_path)) for model in models]
    with assigned_devices(server or ServerConfig(), len(models), parameters.vllm_args) as configs:
        servers = [
            make_local_server(parameters, model, config, is_given_up=is_given_up)
            for model, config in zip(models, configs, strict=True)
        ]
        clients = [
            local_client_config(parameters, model, config) for model, config in zip(models, configs, strict=True)
        ]
        with start_servers(servers, together=can_start_together(configs)):
            for model, started_server, client in zip(models, servers, clients, strict=True):
                for name in (model.name, *model.also):
                    served[name] = Served(endpoints=[started_server.endpoint], model=name, client=client)
            yield served


def _default_policy(parameters: CollectEpisodes) -> str | None:
    """Return the policy of agents that `agent` does not name: `model_path`'s, or the only one; None for none."""
    names = [spec.name for spec in parameters.policies]
    if parameters.model_name in names:
        return parameters.model_name
    return names[0] if len(names) == 1 else None


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
    """Return one model to serve, for a group of policies.

    Args:
        base: Directory or hub id of the base model.
        group: The policies on this base, with different adapters.
        parameters: The call's parameters.
        alone: Whether it is the run's only server, whose log has the run's name.
    """
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


def policy_trials(
    parameters: CollectEpisodes, specs: Sequence[PolicySpec], endpoint: EndpointConfig | None
) -> dict[str, TrialRequest]:
    """Return the trial request of each policy on running servers, by its name."""
    return {
        spec.name: TrialRequest(parameters, urls, (spec.model, spec.name), spec.sampling.request_fields(), block)
        for spec in specs
        if not spec.demonstration and (spec.base_urls or parameters.external)
        for urls, block in [_running_urls(parameters, spec, endpoint)]
    }


def _running_urls(
    parameters: CollectEpisodes, spec: PolicySpec, endpoint: EndpointConfig | None
) -> tuple[tuple[str, ...], EndpointConfig | None]:
    """Return the addresses of a policy's running servers, and the block with their API key, if any."""
    block = None if spec.base_urls else endpoint  # a block's key must not go to other servers
    return tuple(spec.base_urls or (block.base_urls if block else parameters.base_urls)), block


def _on_running_servers(
    parameters: CollectEpisodes,
    specs: Sequence[PolicySpec],
    endpoint: EndpointConfig | None,
    changes: Mapping[str, RequestChanges],
) -> dict[str, Served]:
    """Return the policies on running servers; those on one server share its `Endpoint`.

    Args:
        parameters: The call's parameters.
        specs: The policies of the agents.
        endpoint: Running servers of a block; None without a block.
        changes: Changes that the servers need in a policy's requests, by its name.
    """
    # One `Endpoint` for each server: it counts the requests in flight there, of all policies together.
    shared: dict[str, Endpoint] = {}
    served_by_name: dict[str, Served] = {}
    for spec in specs:
        if spec.demonstration or not (spec.base_urls or parameters.external):
            continue
        urls, block = _running_urls(parameters, spec, endpoint)
        names = spec.model, spec.name
        served = use_running_servers(urls, names, parameters, block, changes=changes.get(spec.name, NO_CHANGES))
        endpoints = [shared.setdefault(item.base_url, item) for item in served.endpoints]
        served_by_name[spec.name] = served.model_copy(update={"endpoints": endpoints})
    return served_by_name
