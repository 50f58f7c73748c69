"""Services that run somewhere: sandboxes, evaluation, search; and all that a job's parameters name by blocks."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.inference import endpoint_config, server_config
from blocks.loading import load_block
from rollmill.generation.job import GenerationParameters
from rollmill.generation.services import Services
from rollmill.inference.http_service import ServiceConfig, service_url


class ServiceBlock(Block):
    """The address of a service, and the token to it."""

    address: str = Field(description="Where it is: host:port or a URL.")
    token: SecretStr | None = Field(default=None, description="Sent as a bearer token; leave empty for none.")

    def check(self) -> str:
        """Return what is there, in one line. Raises `ServingError` where nothing answers or the token is refused."""
        return self.to_config().describe()

    def to_config(self) -> ServiceConfig:
        """Return the domain's own config object. Raises `InputError` for what is no address."""
        return ServiceConfig(address=service_url(self.address), token=self.token)


class SandboxService(ServiceBlock):
    """A service that starts sandboxes and runs commands in them, and the token to it.

    `--sandbox_block NAME` of a flow lets agents' commands run there; `python -m rollmill.services.sandbox` is one.
    """

    _block_type_name = "Sandbox service"
    _block_type_slug = "sandbox-service"
    _description = "A service that starts sandboxes and runs agents' commands in them, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 9527 is the usual port.")


class EvaluationService(ServiceBlock):
    """A service that grades what agents left in sandboxes, and the token to it.

    `--eval_block NAME` of a flow has attempts graded there; `python -m rollmill.services.evaluation` is one.
    """

    _block_type_name = "Evaluation service"
    _block_type_slug = "evaluation-service"
    _description = "A service that tests and times what agents left in sandboxes, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 9528 is the usual port.")


class SearchService(ServiceBlock):
    """A service that finds documents by `/retrieve`, and the token to it.

    `--search_block NAME` of `collect_episodes` lets agents search there.
    """

    _block_type_name = "Search service"
    _block_type_slug = "search-service"
    _description = "A service that finds documents for the agents of the search environment, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 8000 is the usual port.")


def service_config(kind: type[ServiceBlock], name: str | None) -> ServiceConfig | None:
    """Return the config of a saved service; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(kind, name).to_config()


def find_services(parameters: GenerationParameters) -> Services:
    """Read the blocks that a job's parameters name, as far as it has such parameters.

    Raises `InputError` where there is no such block.
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
