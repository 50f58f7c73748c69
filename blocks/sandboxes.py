"""Sandboxes and evaluation: services that run somewhere, and the keys to them."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.loading import load_block
from rollmill.inference.http_service import ServiceConfig, service_url


class SandboxService(Block):
    """A service that starts sandboxes and runs commands in them, and the token to it.

    `--sandbox_block NAME` of a flow lets agents' commands run there; `python -m rollmill.services.sandbox` is one.
    """

    _block_type_name = "Sandbox service"
    _block_type_slug = "sandbox-service"
    _description = "A service that starts sandboxes and runs agents' commands in them, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 9527 is the usual port.")
    token: SecretStr | None = Field(default=None, description="Sent as a bearer token; leave empty for none.")

    def check(self) -> str:
        """What is there, in one line. Raises `ServingError` where nothing answers or the token is refused."""
        return self.to_config().describe()

    def to_config(self) -> ServiceConfig:
        """The domain's own config object. Raises `InputError` for what is no address."""
        return ServiceConfig(address=service_url(self.address), token=self.token)


class EvaluationService(Block):
    """A service that grades what agents left in sandboxes, and the token to it.

    `--eval_block NAME` of a flow has attempts graded there; `python -m rollmill.services.evaluation` is one.
    """

    _block_type_name = "Evaluation service"
    _block_type_slug = "evaluation-service"
    _description = "A service that tests and times what agents left in sandboxes, and the token to it."

    address: str = Field(description="Where it is: host:port or a URL; 9528 is the usual port.")
    token: SecretStr | None = Field(default=None, description="Sent as a bearer token; leave empty for none.")

    def check(self) -> str:
        """What is there, in one line. Raises `ServingError` where nothing answers or the token is refused."""
        return self.to_config().describe()

    def to_config(self) -> ServiceConfig:
        """The domain's own config object. Raises `InputError` for what is no address."""
        return ServiceConfig(address=service_url(self.address), token=self.token)


def sandbox_service(name: str | None) -> ServiceConfig | None:
    """The config of a saved `SandboxService`; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(SandboxService, name).to_config()


def evaluation_service(name: str | None) -> ServiceConfig | None:
    """The config of a saved `EvaluationService`; None for no name. Raises `InputError` where there is no such block."""
    return None if name is None else load_block(EvaluationService, name).to_config()
