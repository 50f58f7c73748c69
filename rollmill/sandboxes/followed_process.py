"""Runs a child process and reads its output as it arrives, in bounded memory."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rollmill.sandboxes.output import CappedOutput

_PIECE = 1 << 16
_SLOWED_S = 0.002
"""Pause in seconds after each piece of output that is only counted, so that endless output does not use up a core."""


class FollowedProcess:
    """A process in a new session, without input, with standard output and error in one pipe."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> None:
        """Start the process. Raises `OSError` where it cannot be started."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        assert self._process.stdout
        self.pid = self._process.pid
        self._output = self._process.stdout.fileno()
        self._outside = os.pidfd_open(self.pid)
        self._poll = select.poll()
        self._watch(self._output)
        self._watch(self._outside)

    def wait(self, seconds: float, output: CappedOutput) -> bool:
        """Read available output for at most `seconds`; return whether the process has ended."""
        for file, _ in self._poll.poll(max(seconds, 0) * 1000):
            if file == self._output:
                self._read_output(output)
            else:
                self._ready(file)
        return self._process.poll() is not None

    def kill(self) -> None:
        """Send SIGKILL to the process alone."""
        self._process.kill()

    def finish(self, output: CappedOutput) -> int | None:
        """Read the rest of the output of a process that has ended and return its return code."""
        while self._read_output(output):
            pass
        self._close()
        return self._process.poll()

    def _watch(self, file: int) -> None:
        os.set_blocking(file, False)
        self._poll.register(file, select.POLLIN)

    def _forget(self, file: int) -> None:
        with suppress(KeyError):
            self._poll.unregister(file)

    def _ready(self, file: int) -> None:
        """Handle a watched file, other than the output, that can be read."""

    def _read_output(self, output: CappedOutput) -> bool:
        piece = read_available(self._output)
        if piece == b"":
            self._forget(self._output)
        if piece:
            output.add(piece)
            if output.full:
                time.sleep(_SLOWED_S)
        return bool(piece)

    def _close(self) -> None:
        assert self._process.stdout
        self._process.stdout.close()
        os.close(self._outside)


def read_available(file: int) -> bytes | None:
    """Return the next bytes; empty at the end of the file, None where none are available yet."""
    try:
        return os.read(file, _PIECE)
    except BlockingIOError:
        return None
