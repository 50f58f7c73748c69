"""Talks to a process in a sandbox by lines, within its limits."""

from __future__ import annotations

import time
from typing import Protocol

from rollmill.sandboxes.followed_process import FollowedProcess
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.sandbox import TIMED_OUT, Execution

_KILLED = 137
_UNREAD = 1 << 20
"""Most bytes that a process may write before they are asked for."""


class EndedTalkError(Exception):
    """The process ended, broke a limit, or wrote something else than a line; the message says which."""


class LimitCheck(Protocol):
    """Looks from time to time at the limits of a process; see `Watch`."""

    def due_s(self) -> float:
        """Return the seconds until the next look."""
        ...

    def broken(self) -> str | None:
        """Return the limit that is exceeded, in words; None where none is."""
        ...

    def cpu_s(self) -> float | None:
        """Return the CPU seconds used so far; None where that is unknown."""
        ...


class PipedProcess:
    """A process with its standard input and output in pipes; a sandbox's `open_process` makes it.

    No call blocks longer than until the process's time limit. Use it in the thread that made it.
    """

    def __init__(
        self,
        running: FollowedProcess,
        check: LimitCheck,
        *,
        errors: CappedOutput,
        timeout_s: float,
    ) -> None:
        """Take over a process that was started.

        Args:
            running: The process, with `errors`.
            check: Looks at its limits.
            errors: Collects its standard error.
            timeout_s: Its time limit, in seconds from now.
        """
        self._running = running
        self._check = check
        self._errors = errors
        self._lines = _Lines()
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._ended = False
        self._late = False
        self._broken: str | None = None
        self._execution: Execution | None = None

    @property
    def began(self) -> float:
        """Return when it was started, by `time.monotonic`."""
        return self._running.began

    @property
    def ended(self) -> bool:
        """Return whether it ended by itself."""
        return self._ended

    def cpu_s(self) -> float | None:
        """Return the CPU seconds that it and its children used so far; None where the sandbox does not know them."""
        return self._check.cpu_s()

    def send(self, data: bytes) -> None:
        """Write to its standard input. Raises `EndedTalkError` where that is closed or not read in time."""
        left = memoryview(data)
        while True:
            try:
                left = left[self._running.write(left) :]
            except BrokenPipeError:
                self._see_end()
                raise EndedTalkError(self._end() if self._ended else "it closed its standard input") from None
            if not left:
                return
            self._wait(to_write=True)
            if len(self._lines) > _UNREAD:
                raise EndedTalkError("it writes without being asked")

    def read_line(self, most: int) -> bytes:
        """Return the next line without its end. Raises `EndedTalkError`, also for one of more than `most` bytes."""
        while (line := self._lines.take()) is None:
            if len(self._lines) > most:
                raise EndedTalkError(f"it wrote a line of more than {most} bytes")
            if self._ended:
                raise EndedTalkError(self._end())
            self._wait()
        if len(line) > most:
            raise EndedTalkError(f"it wrote a line of more than {most} bytes")
        return line

    def unread(self) -> bool:
        """Return whether bytes have arrived that were not read."""
        return len(self._lines) > 0

    def close(self, code: int | None) -> None:
        """Note its return code, None where it was killed; called by the sandbox at its end."""
        enforced = TIMED_OUT if self._late else _KILLED
        self._execution = Execution(
            output=self._errors.text(),
            returncode=enforced if code is None or self._late or self._broken else code,
            timed_out=self._late,
            truncated=self._errors.full,
            killed_by=self._broken,
            seconds=max(time.monotonic() - self.began, 0.0),
        )

    @property
    def execution(self) -> Execution:
        """Return how it ended, with its standard error as the output. Call it after the block of `open_process`."""
        if self._execution is None:
            raise ValueError("the process has not ended")
        return self._execution

    def _wait(self, *, to_write: bool = False) -> None:
        """Wait until there is something to read, or to write to, or the limits are to be looked at."""
        left = self._deadline - time.monotonic()
        self._broken = self._check.broken()
        if self._broken:
            raise EndedTalkError(self._end())
        if left <= 0:
            self._late = True
            raise EndedTalkError(f"its time of {self._timeout_s:.1f} s was over")
        if self._running.wait(min(self._check.due_s(), left), self._lines, to_write=to_write):
            self._see_end()

    def _see_end(self) -> None:
        """Note the end of the process, if it has ended, and read what is left."""
        if self._running.wait(0.0, self._lines):
            self._running.read_rest(self._lines)
            self._ended = True
            # Another container may have ended it for that.
            self._broken = self._broken or self._check.broken()

    def _end(self) -> str:
        if self._broken:
            return f"it was ended by the {self._broken}"
        return "it ended in the middle of a line" if len(self._lines) else "it ended"


class _Lines:
    """Takes a stream of bytes apart into lines. Holds what is not taken yet, so read no more than is needed."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._searched = 0

    full = False

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, piece: bytes) -> None:
        self._bytes += piece

    def take(self) -> bytes | None:
        end = self._bytes.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._bytes)
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line
