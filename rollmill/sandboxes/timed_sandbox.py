"""A sandbox with one time limit for several commands."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rollmill.sandboxes.sandbox import Execution, Sandbox, SandboxError


class TimedSandbox:
    """A sandbox whose commands together take at most so many seconds; then they raise `SandboxError`."""

    def __init__(self, sandbox: Sandbox, seconds: float) -> None:
        self.untimed = sandbox
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def execute(
        self, command: str, *, cwd: str = "", timeout_s: float | None = None, env: Mapping[str, str] | None = None
    ) -> Execution:
        """Run a command in the time that is left.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in.
            timeout_s: Time limit in seconds; None for all time that is left.
            env: More environment variables.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise SandboxError(f"it takes more than {self._seconds:g} seconds to read", type_="contents")
        return self.untimed.execute(command, cwd=cwd, timeout_s=min(left, timeout_s or left), env=env)
