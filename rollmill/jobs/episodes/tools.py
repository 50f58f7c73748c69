"""Opens the tools of a run's environments: code execution, search, verification."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Self

from rollmill.environments.python_runs import IMAGE, SandboxedPython, empty_images
from rollmill.environments.search.index import open_index
from rollmill.environments.search.remote import TOKEN_VARIABLE as SEARCH_TOKEN
from rollmill.environments.search.remote import RemoteSearcher
from rollmill.environments.tools import PythonRunner, Searcher, Tool, Tools
from rollmill.inference.http_service import ServiceConfig, service_url, token_from_environment
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.records import Problem, Verdict
from rollmill.sandboxes.registry import SANDBOXES, HostSettings, open_host
from rollmill.sandboxes.remote import TOKEN_VARIABLE as SANDBOX_TOKEN
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from rollmill.verifiers import VerifierPool
from rollmill.verifiers.failure import VerifierFailed


def open_tools(
    parameters: CollectEpisodes,
    needs: Collection[Tool],
    settings: Any,
    closing: ExitStack,
    *,
    sandboxes: ServiceConfig | None,
    search: ServiceConfig | None,
) -> Tools:
    """Open the tools that an environment needs, except verification.

    Raises `InputError` for a kind of sandbox or a corpus that cannot be used.

    Args:
        parameters: The call's parameters.
        needs: The tools that the environment needs.
        settings: The environment's settings.
        closing: Stack that closes the tools.
        sandboxes: The sandbox service of a block; None without a block.
        search: The search service of a block; None without a block.
    """
    return Tools(
        python=_open_python(parameters, closing, sandboxes) if "python" in needs else None,
        searcher=_open_searcher(parameters, settings, closing, search) if "search" in needs else None,
    )


def _open_python(parameters: CollectEpisodes, closing: ExitStack, service: ServiceConfig | None) -> PythonRunner:
    limits = Limits(memory_mb=parameters.memory_mb, processes=parameters.processes)
    if parameters.sandbox_server:
        address = service_url(parameters.sandbox_server)
        service = ServiceConfig(address=address, token=token_from_environment(SANDBOX_TOKEN))
    images = closing.enter_context(empty_images()) if SANDBOXES[parameters.sandbox_kind].from_folders else None
    settings = HostSettings(images=images, packages=(), service=service)
    host = closing.enter_context(open_host(parameters.sandbox_kind, settings))
    image = parameters.sandbox_image if images is None else IMAGE
    spec = SandboxSpec(image=image, timeout_s=parameters.code_timeout, limits=limits)
    return SandboxedPython(host, spec=spec, at_once=parameters.max_sandboxes)


def _open_searcher(
    parameters: CollectEpisodes, settings: Any, closing: ExitStack, service: ServiceConfig | None
) -> Searcher:
    """Open the search service, or an index of the environment's corpus on this machine.

    Args:
        parameters: The call's parameters.
        settings: The environment's settings.
        closing: Stack that closes the searcher.
        service: The search service of a block; None without a block.
    """
    if parameters.search_server:
        address = service_url(parameters.search_server)
        service = ServiceConfig(address=address, token=token_from_environment(SEARCH_TOKEN))
    if service is not None:
        remote = RemoteSearcher(service.address, token=service.token)
        closing.callback(remote.close)
        return remote
    return closing.enter_context(open_index(settings.corpus))


class VerifierPools:
    """Pools of verifiers by name, opened when first used; called from the threads of environments.

    An asynchronous context manager.
    """

    def __init__(self) -> None:
        self._pools: dict[str, VerifierPool] = {}
        self._stack = AsyncExitStack()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await self._stack.aclose()

    def verify(self, verifier: str, problem: Problem, completion: str) -> Verdict:
        """Return the verdict of a verifier; see `Verification`. Call it from any thread but the event loop's."""
        return asyncio.run_coroutine_threadsafe(self._verify(verifier, problem, completion), self._loop).result()

    async def _verify(self, verifier: str, problem: Problem, completion: str) -> Verdict:
        if self._closed:
            raise VerifierFailed("verifier_died", "the verifier pool is closed")
        if verifier not in self._pools:
            self._pools[verifier] = pool = VerifierPool(verifier, accept_error=0.0)
            await self._stack.enter_async_context(pool)
        return await self._pools[verifier].verify(problem, completion)
