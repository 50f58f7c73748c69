"""The sandboxes that a host has started and that are not closed."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Generic, Self, TypeVar

from rollmill.sandboxes.sandbox import Sandbox, SandboxError

SandboxT = TypeVar("SandboxT", bound=Sandbox)


class StartedSandboxes(Generic[SandboxT]):
    """What every host derives from; may be used by many threads.

    A host gives each sandbox `_forget`, to be called with its id when it is closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sandboxes: dict[str, SandboxT] = {}
        self._closed = False

    def find(self, sandbox_id: str) -> SandboxT:
        """One that was started here and is not closed; see `SandboxHost`."""
        with self._lock:
            found = self._sandboxes.get(sandbox_id)
        if found is None:
            raise SandboxError(f"there is no sandbox {sandbox_id!r} here", type_="unknown_sandbox")
        return found

    def close(self) -> None:
        """Ends all that are left; no more are started."""
        for sandbox in self._stop_starting():
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refusal(self) -> SandboxError:
        """What a start comes to when the host is closed."""
        return SandboxError("this host of sandboxes is closed", type_="start")

    def _check_open(self) -> None:
        if self._closed:
            raise self._refusal()

    def _add(self, sandbox: SandboxT) -> SandboxT:
        """The same one, found here from now on. Where the host was closed meanwhile, it is ended: a `SandboxError`."""
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
        """Those that are left."""
        with self._lock:
            self._closed = True
            return list(self._sandboxes.values())
