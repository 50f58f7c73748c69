"""Search: a service that finds documents, and the key to it."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.loading import load_block
from rollmill.inference.http_service import ServiceConfig, service_url


class SearchService(Block):
    """A service that finds documents by `/retrieve`, and the token to it.

    `--search_block NAME` of `collect_episodes` lets agents search there.
    """

    _block_type_name = "Search service"
    _block_type_slug = "search-service"
    _description = "A service that finds documents for the agents of the search environment, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 8000 is the usual port.")
    token: SecretStr | None = Field(default=None, description="Sent as a bearer token; leave empty for none.")

    def check(self) -> str:
        """What is there, in one line. Raises `ServingError` where nothing answers or the token is refused."""
        return self.to_config().describe()

    def to_config(self) -> ServiceConfig:
        """The domain's own config object. Raises `InputError` for what is no address."""
        return ServiceConfig(address=service_url(self.address), token=self.token)


def search_service(name: str | None) -> ServiceConfig | None:
    """The config of a saved `SearchService`; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(SearchService, name).to_config()
