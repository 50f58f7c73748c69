"""How a rejection sampling run asks its model."""

from __future__ import annotations

from rollmill.rejection.checkpoint import prompting, verifier_pool
from rollmill.rejection.parameters import RejectSampling
from rollmill.rollouts.chat import ChatRollouts
from rollmill.serving.client import ChatClient
from rollmill.serving.endpoints import EndpointPool
from rollmill.serving.served import Served


def chat_rollouts(parameters: RejectSampling, served: Served) -> ChatRollouts:
    """What makes the run's rollouts. Raises `InputError` for a template, examples or a verifier that cannot be used."""
    return ChatRollouts(
        ChatClient(EndpointPool(served.endpoints), served.client),
        verifier_pool(parameters),
        model=served.model,
        sampling=parameters.sampling,
        prompting=prompting(parameters),
    )
