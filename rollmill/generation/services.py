"""The outside services that a generating job may use, as Prefect blocks describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.inference.backend import EndpointConfig, Served, ServedModel, ServingParameters, served
from rollmill.inference.http_service import ServiceConfig
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.server import ServerConfig
from rollmill.inference.trial import MODEL, TrialRequest


class Services(NamedTuple):
    """The services that a job's parameters name by blocks; None for those that they do not name.

    They hold secrets, so that they are read in the process that uses them, and never travel with a job.
    """

    server: ServerConfig | None = None
    """How a machine starts vLLM."""
    endpoint: EndpointConfig | None = None
    """Inference servers that run already."""
    sandbox: ServiceConfig | None = None
    evaluation: ServiceConfig | None = None
    search: ServiceConfig | None = None


def model_trials(
    parameters: ServingParameters, services: Services, model: ServedModel, fields: Mapping[str, Any]
) -> dict[str, TrialRequest]:
    """Return the request that a job with one model tries on running servers; nothing where it starts its own.

    Args:
        parameters: How servers are asked.
        services: Where they may be.
        model: The job's.
        fields: What its requests say beside their messages and seeds.
    """
    if not parameters.external:
        return {}
    endpoint = services.endpoint
    urls = endpoint.base_urls if endpoint else tuple(parameters.base_urls)
    return {MODEL: TrialRequest(parameters, urls, (model.name, model.path), fields, endpoint)}


class GeneratorContext(NamedTuple):
    """With what, and for how long, a job's generator is opened in this process."""

    services: Services = Services()
    is_given_up: Callable[[], bool] | None = None
    """Says when nobody waits for the rollouts any more: starting a server then ends at once."""
    log_path: Callable[[Path], Path] = Path
    """From where a log would go to where this process writes it."""

    def serve(
        self, parameters: ServingParameters, model: ServedModel, changes: RequestChanges = NO_CHANGES
    ) -> AbstractContextManager[Served]:
        """Serve a model for the time of a block, on a server of our own or on those that run; see `served`."""
        return served(
            parameters,
            model._replace(log_path=self.log_path(model.log_path)),
            server=self.services.server,
            endpoint=self.services.endpoint,
            is_given_up=self.is_given_up,
            changes=changes,
        )
