"""A child process that cannot outlive this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from rollmill.terminal import process_supervisor

_MARK = "ROLLMILL_KEPT"
"""Environment variable by which a command's descendants are known when their keeper is gone."""
_LONGEST_KILL_S = 10.0


class KeptProcess:
    """One command in a session and process group of its own, under a keeper (see `process_supervisor`).

    However this process ends, SIGKILL included, the command and all its descendants end too.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None, grace_s: float = 10.0
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._mark = uuid.uuid4().hex
        watched, self._leash = os.pipe()
        try:
            with log.open("ab") as output:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", process_supervisor.__file__, str(watched), str(grace_s), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {}), _MARK: self._mark},
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
        """Wait for the end; return the exit code, or None when the time was up."""
        try:
            return self._keeper.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Send SIGTERM, then SIGKILL after the grace, to the whole tree; return when none of it is left.

        What does not even end by SIGKILL is waited for 10 s.
        """
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        if self.wait(self._grace_s + _LONGEST_KILL_S) is None:
            self._keeper.kill()
            self._keeper.wait()
        if self._keeper.returncode == -signal.SIGKILL:
            # The keeper itself was killed: what it kept is on its own, may be forking, and may be stuck in a driver.
            deadline = time.monotonic() + _LONGEST_KILL_S
            while self._kill_marked() and time.monotonic() < deadline:
                time.sleep(0.02)

    def _kill_marked(self) -> bool:
        """Send SIGKILL to whatever the command left; return whether there was anything."""
        killed = False
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    killed = True
            except psutil.Error:
                continue
        return killed
