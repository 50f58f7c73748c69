"""How a rejection sampling run asks its model: here, or on a worker of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rollmill.generation.chat import ChatRollouts
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ShardRun
from rollmill.generation.worker_session import log_of_worker, part_session
from rollmill.inference.backend import EndpointConfig, Served, served
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.server import ServerConfig
from rollmill.jobs.rejection_sampling.checkpoint import Checkpoint, prompting, verifier_pool
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.problems import Prompting


def chat_rollouts(parameters: RejectSampling, model: Served, how: Prompting | None = None) -> ChatRollouts:
    """What makes the run's rollouts. Raises `InputError` for a template, examples or a verifier that cannot be used."""
    return ChatRollouts(
        ChatClient(EndpointPool(model.endpoints), model.client),
        verifier_pool(parameters),
        model=model.model,
        sampling=parameters.sampling,
        prompting=how or prompting(parameters),
    )


class ChatOrder(NamedTuple):
    """What a worker has to know beside the problems. Paths are absolute, and secrets in blocks."""

    parameters: RejectSampling
    checkpoint: Checkpoint
    prompting: Prompting

    @property
    def directory(self) -> Path:
        """The run's."""
        return self.checkpoint.directory


def chat_order(parameters: RejectSampling, checkpoint: Checkpoint) -> ChatOrder:
    """The part of a call in it. Raises `InputError` for a template or examples that cannot be used."""
    path = Path(checkpoint.path)
    there = checkpoint._replace(
        path=str(path.absolute()) if path.is_dir() and not parameters.external else checkpoint.path,
        directory=checkpoint.directory.absolute(),
        log_path=checkpoint.log_path.absolute(),
    )
    return ChatOrder(parameters, there, prompting(parameters))


@contextmanager
def chat_session(
    order: ChatOrder,
    part: ShardRun,
    is_given_up: Callable[[], bool],
    *,
    server: ServerConfig | None,
    endpoint: EndpointConfig | None,
) -> Iterator[RolloutSession[ShardRun]]:
    """A session for a part of the run, on a worker: with a server there, or those that are running.

    Raises `ServingError` as `served` does, and `RunStoppedError` when it was given up before the model could be asked.
    """
    parameters = order.parameters
    wanted = order.checkpoint._replace(log_path=log_of_worker(order.checkpoint.log_path)).model
    with served(parameters, wanted, server=server, endpoint=endpoint, is_given_up=is_given_up) as model:
        asking = chat_rollouts(parameters, model, order.prompting)
        with part_session(part, asking, slots=parameters.slots, is_given_up=is_given_up) as session:
            yield session
