"""A child process, with all its descendants, that cannot outlive this process."""

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
"""Environment variable that marks a command's descendants, to find them if the supervisor was killed."""
_LONGEST_KILL_S = 10.0


class SupervisedProcess:
    """A command under a supervisor process (see `process_supervisor`), in its own session and process group.

    However this process ends, even by SIGKILL, the command and all its descendants are ended, too.

    Args:
        command: Program and arguments.
        log: File to which standard output and error are appended.
        environment: Variables in addition to those of this process.
        grace_s: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None, grace_s: float = 10.0
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._mark = uuid.uuid4().hex
        # The supervisor watches the pipe: the kernel closes our end when this process ends, however it does.
        watched, self._leash = os.pipe()
        try:
            with log.open("ab") as output:
                self._supervisor = subprocess.Popen(
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
        """Return the supervisor's process number, which is also that of the process group and the session."""
        return self._supervisor.pid

    @property
    def returncode(self) -> int | None:
        """Return the command's exit code, 128 + n when signal n ended it; None while it runs."""
        return self._supervisor.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end; return the exit code, or None after `timeout_s`."""
        try:
            return self._supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Send SIGTERM, and after the grace period SIGKILL, to the whole process tree; return when it has ended.

        Processes that SIGKILL does not end, such as those stuck in a driver, are waited for 10 s at most.
        """
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        if self.wait(self._grace_s + _LONGEST_KILL_S) is None:
            self._supervisor.kill()
            self._supervisor.wait()
        if self._supervisor.returncode == -signal.SIGKILL:
            # The supervisor itself was killed. The command may still be forking, so that one pass is not enough.
            deadline = time.monotonic() + _LONGEST_KILL_S
            while self._kill_marked() and time.monotonic() < deadline:
                time.sleep(0.02)

    def _kill_marked(self) -> bool:
        """Send SIGKILL to all processes with the mark; return whether there were any."""
        killed = False
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    killed = True
            except psutil.Error:
                continue
        return killed
