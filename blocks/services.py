"""The blocks of services: sandboxes, evaluation, search; loads all blocks that a job's parameters name."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.inference import endpoint_config, server_config
from blocks.loading import load_block
from rollmill.generation.job import GenerationParameters
from rollmill.generation.services import Services
from rollmill.inference.http_service import ServiceConfig, service_url


class ServiceBlock(Block):
    """The address of a service, and its token."""

    address: str = Field(description="Where it is: host:port or a URL.")
    token: SecretStr | None = Field(default=None, description="Sent as a bearer token; leave empty for none.")

    def check(self) -> str:
        """Return a description of the service, in one line. Raises `ServingError` if it does not answer or refuses."""
        return self.to_config().describe()

    def to_config(self) -> ServiceConfig:
        """Return the configuration object of the domain. Raises `InputError` for an invalid address."""
        return ServiceConfig(address=service_url(self.address), token=self.token)


class SandboxService(ServiceBlock):
    """A service that starts sandboxes and runs commands in them, and its token.

    With `--sandbox_block NAME` a flow runs agents' commands there; `python -m rollmill.services.sandbox` is one.
    """

    _block_type_name = "Sandbox service"
    _block_type_slug = "sandbox-service"
    _description = "A service that starts sandboxes and runs agents' commands in them, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 9527 is the usual port.")


class EvaluationService(ServiceBlock):
    """A service that grades the work trees that agents left in sandboxes, and its token.

    With `--eval_block NAME` a flow grades attempts there; `python -m rollmill.services.evaluation` is one.
    """

    _block_type_name = "Evaluation service"
    _block_type_slug = "evaluation-service"
    _description = "A service that tests and times what agents left in sandboxes, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 9528 is the usual port.")


class SearchService(ServiceBlock):
    """A service that retrieves documents by `/retrieve`, and its token.

    With `--search_block NAME`, `collect_episodes` lets agents search there.
    """

    _block_type_name = "Search service"
    _block_type_slug = "search-service"
    _description = "A service that finds documents for the agents of the search environment, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 8000 is the usual port.")


def service_config(kind: type[ServiceBlock], name: str | None) -> ServiceConfig | None:
    """Return the configuration of a saved service; None for no name. Raises `InputError` if there is no such block."""
    return None if name is None else load_block(kind, name).to_config()


def find_services(parameters: GenerationParameters) -> Services:
    """Load the blocks that a job's parameters name; not every job has a parameter for each.

    Raises `InputError` if there is no such block.
    """

    def name(field: str) -> str | None:
        return getattr(parameters, field, None)

    return Services(
        server=server_config(name("server_block")),
        endpoint=endpoint_config(name("endpoint_block")),
        sandbox=service_config(SandboxService, name("sandbox_block")),
        evaluation=service_config(EvaluationService, name("eval_block")),
        search=service_config(SearchService, name("search_block")),
    )
