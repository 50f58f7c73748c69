"""The open sandboxes of a host."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Generic, Self, TypeVar

from rollmill.sandboxes.sandbox import Sandbox, SandboxError

SandboxT = TypeVar("SandboxT", bound=Sandbox)


class StartedSandboxes(Generic[SandboxT]):
    """Base class of hosts: the sandboxes that are open; thread-safe.

    A host gives each sandbox `_forget`, to be called with its id when it is closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sandboxes: dict[str, SandboxT] = {}
        self._closed = False

    def find(self, sandbox_id: str) -> SandboxT:
        """Return an open sandbox that was started here; see `SandboxHost`."""
        with self._lock:
            sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxError(f"there is no sandbox {sandbox_id!r} here", type_="unknown_sandbox")
        return sandbox

    def close(self) -> None:
        """Close all open sandboxes; no more can be started."""
        for sandbox in self._stop_starting():
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refusal(self) -> SandboxError:
        """Return the error of a start after the host was closed."""
        return SandboxError("this host of sandboxes is closed", type_="start")

    def _check_open(self) -> None:
        if self._closed:
            raise self._refusal()

    def _add(self, sandbox: SandboxT) -> SandboxT:
        """Register a new sandbox and return it. Raises `SandboxError` where the host was closed meanwhile."""
        with self._lock:
            self._sandboxes[sandbox.id] = sandbox
            late = self._closed
        if late:
            sandbox.close()
            raise self._refusal()
        return sandbox

    def _forget(self, sandbox_id: str) -> None:
        with self._lock:
            self._sandboxes.pop(sandbox_id, None)

    def _stop_starting(self) -> list[SandboxT]:
        """Refuse further starts and return the open sandboxes."""
        with self._lock:
            self._closed = True
            return list(self._sandboxes.values())
