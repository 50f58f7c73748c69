"""Runs a child process and reads its output as it arrives, in bounded memory."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from rollmill.sandboxes.output import CappedOutput

_PIECE = 1 << 16
_SLOWED_S = 0.002
"""Pause in seconds after each piece of output that is only counted, so that endless output does not use up a core."""


class Output(Protocol):
    """Takes a process's output."""

    @property
    def full(self) -> bool:
        """Return whether bytes are dropped: then the process is slowed."""
        ...

    def add(self, piece: bytes) -> None:
        """Take the next bytes."""
        ...


class FollowedProcess:
    """A process in a new session, without input, with standard output and error in one pipe; or with three pipes."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        errors: CappedOutput | None = None,
    ) -> None:
        """Start the process. Raises `OSError` where it cannot be started.

        Args:
            command: Program and arguments.
            env: All environment variables.
            pass_fds: Files that it inherits.
            errors: Collects its standard error. Then its standard input is a pipe, too, for `write`; None for neither.
        """
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if errors is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors is None else subprocess.PIPE,
            bufsize=0,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.began = time.monotonic()
        assert self._process.stdout
        self.pid = self._process.pid
        self._output = self._process.stdout.fileno()
        self._outside = os.pidfd_open(self.pid)
        self._poll = select.poll()
        self._errors = errors
        self._watch(self._output)
        self._watch(self._outside)
        if self._process.stderr:
            self._watch(self._process.stderr.fileno())
        if self._process.stdin:
            os.set_blocking(self._process.stdin.fileno(), False)

    def wait(self, seconds: float, output: Output, *, to_write: bool = False) -> bool:
        """Read available output for at most `seconds`; return whether the process has ended.

        With `to_write`, return as soon as its standard input takes bytes, too.
        """
        if to_write:
            self._poll.register(self._input, select.POLLOUT)
        for file, _ in self._poll.poll(max(seconds, 0) * 1000):
            if file == self._output:
                self._read_output(output)
            elif self._process.stderr and file == self._process.stderr.fileno():
                self._read_errors()
            else:
                self._ready(file)
        if to_write:
            self._forget(self._input)
        return self._process.poll() is not None

    def write(self, piece: bytes | memoryview) -> int:
        """Write to its standard input what that takes now; return the number of bytes.

        Raises `BrokenPipeError` where the process has closed it.
        """
        try:
            return os.write(self._input, piece)
        except BlockingIOError:
            return 0

    def read_rest(self, output: Output) -> None:
        """Read the output that is left of a process that has ended."""
        while self._read_output(output):
            pass

    def kill(self) -> None:
        """Send SIGKILL to the process alone."""
        self._process.kill()

    def finish(self, output: Output) -> int | None:
        """Read the rest of the output of a process that has ended and return its return code."""
        self.read_rest(output)
        if self._process.stderr:
            while self._read_errors():
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

    @property
    def _input(self) -> int:
        assert self._process.stdin
        return self._process.stdin.fileno()

    def _read_errors(self) -> bool:
        assert self._process.stderr
        assert self._errors is not None
        piece = read_available(self._process.stderr.fileno())
        if piece == b"":
            self._forget(self._process.stderr.fileno())
        if piece:
            self._errors.add(piece)
            if self._errors.full:
                time.sleep(_SLOWED_S)
        return bool(piece)

    def _read_output(self, output: Output) -> bool:
        piece = read_available(self._output)
        if piece == b"":
            self._forget(self._output)
        if piece:
            output.add(piece)
            if output.full:
                time.sleep(_SLOWED_S)
        return bool(piece)

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        os.close(self._outside)


def read_available(file: int) -> bytes | None:
    """Return the next bytes; empty at the end of the file, None where none are available yet."""
    try:
        return os.read(file, _PIECE)
    except BlockingIOError:
        return None
