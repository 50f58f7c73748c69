"""A child process that cannot outlive this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollmill.serving import keeper


class KeptProcess:
    """One command in a session and process group of its own, under a keeper (see `keeper`).

    However this process ends, SIGKILL included, the command and all its descendants end too.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None, grace_s: float = 10.0
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        watched, self._leash = os.pipe()
        try:
            with log.open("ab") as output:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", keeper.__file__, str(watched), str(grace_s), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ, **(environment or {})),
                    pass_fds=(watched,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._leash)
            raise
        finally:
            os.close(watched)
        self._grace_s = grace_s

    @property
    def pid(self) -> int:
        """The keeper's, which is also the process group's and the session's number."""
        return self._keeper.pid

    @property
    def returncode(self) -> int | None:
        """None while the command runs; else its exit code, 128 + n when signal n ended it."""
        return self._keeper.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the end; the exit code, or None when the time was up."""
        try:
            return self._keeper.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """SIGTERM, then SIGKILL after the grace, to the whole tree; returns when none of it is left."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        if self.wait(self._grace_s + 10) is None:
            self._kill_group()
        elif self._keeper.returncode == -signal.SIGKILL:
            self._kill_group()  # the keeper itself was killed: what it kept is on its own
        self._keeper.wait()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._keeper.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
