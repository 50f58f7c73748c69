"""The external services that a generating job may use, as Prefect blocks configure them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.inference.backend import EndpointConfig, Served, ServedModel, ServingParameters, serve_model
from rollmill.inference.http_service import ServiceConfig
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.server import ServerConfig
from rollmill.inference.trial import MODEL, TrialRequest


class Services(NamedTuple):
    """The services whose blocks a job's parameters name; None for the others.

    They contain secrets: each process loads them itself, and they are never pickled with a job.
    """

    server: ServerConfig | None = None
    """How to start vLLM on this machine."""
    endpoint: EndpointConfig | None = None
    """Inference servers that are running already."""
    sandbox: ServiceConfig | None = None
    evaluation: ServiceConfig | None = None
    search: ServiceConfig | None = None


def model_trials(
    parameters: ServingParameters, services: Services, model: ServedModel, fields: Mapping[str, Any]
) -> dict[str, TrialRequest]:
    """Return the request that a job with one model tries on running servers; empty where it starts its own server.

    Args:
        parameters: Server parameters of the job.
        services: May contain an endpoint block with the servers' addresses.
        model: The job's model.
        fields: Fields of the job's requests, without messages and seeds.
    """
    if not parameters.external:
        return {}
    endpoint = services.endpoint
    urls = endpoint.base_urls if endpoint else tuple(parameters.base_urls)
    return {MODEL: TrialRequest(parameters, urls, (model.name, model.path), fields, endpoint)}


class GeneratorContext(NamedTuple):
    """Everything that a job needs, besides its parameters, to open its generator in this process."""

    services: Services = Services()
    is_given_up: Callable[[], bool] | None = None
    """Returns True when the rollouts are not needed any more, which ends the start of a server; None for never."""
    log_path: Callable[[Path], Path] = Path
    """Maps the job's log path to the one of this process, which differs on workers that share a folder."""

    def serve(
        self, parameters: ServingParameters, model: ServedModel, changes: RequestChanges = NO_CHANGES
    ) -> AbstractContextManager[Served]:
        """Start a server for a model, or use running ones, until the end of the block; see `serve_model`."""
        return serve_model(
            parameters,
            model._replace(log_path=self.log_path(model.log_path)),
            server=self.services.server,
            endpoint=self.services.endpoint,
            is_given_up=self.is_given_up,
            changes=changes,
        )
