"""Detects that this process's work has stalled, writes the stacks of all threads to a file, and ends the process.

A step of work with a time limit (a request, a command in a sandbox, loading a model) runs within `TimedStep`; a step
without one (a decoding step, a rollout) calls `note_progress`. A process in which nothing completes although the limits
of all open steps have passed is stuck: in an endless call, a deadlock, or a lost wake-up.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from io import FileIO
from pathlib import Path
from types import FrameType

from rollmill.errors import RunStoppedError

MARGIN_S = 30.0
"""Seconds added to a limit (but at most the limit itself) for work between two steps."""
CLEANUP_S = 30.0
"""Seconds in which a stalled process may clean up before it is ended."""
INTERPRETER_S = 240.0
"""Seconds without a running Python thread after which a worker is ended; Dask, after 300 s, would write no stacks."""
STACKS = "stalled.*.txt"
"""Names of the files, in a run's log folder, with the stacks of a stalled process."""
RUN_OF_DEPLOYMENT = "PREFECT__FLOW_RUN_ID"
"""The environment variable that Prefect sets for the process of a deployment's run."""
_GAP_FACTOR = 3.0
_MOST_LOOKS_S = 5.0
_MOST_OPENINGS = 10


class _Progress:
    """The time of the last completed step, and the deadlines of open ones.

    Changed without a lock: each change is one atomic operation of the interpreter.
    """

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.longest_gap_s = 0.0
        self.open: dict[int, float] = {}
        """Deadlines of open steps, in seconds of `time.monotonic`, by `id` of the `TimedStep`."""


_progress = _Progress()


def note_progress() -> None:
    """Record that a step of work has completed."""
    now = time.monotonic()
    gap = now - _progress.last
    if gap > _progress.longest_gap_s:
        _progress.longest_gap_s = gap
    _progress.last = now


class TimedStep:
    """A context manager for a step that ends within `limit_s` by its own time limit; its end counts as progress."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def __enter__(self) -> None:
        _progress.open[id(self)] = time.monotonic() + self._limit_s

    def __exit__(self, *raised: object) -> None:
        _progress.open.pop(id(self), None)
        _progress.last = time.monotonic()  # not by `note_progress`: a step with a known limit is not an unexplained gap


def remaining_s(limit_s: float) -> float:
    """Return the seconds until the work counts as stalled; negative once it does.

    A gap between steps that has ended by itself shows how slow the work can be: up to three times the longest such gap
    does not count as a stall.
    """
    limit = max(limit_s, _GAP_FACTOR * _progress.longest_gap_s)
    allowed = max(list(_progress.open.values()), default=0.0)
    return max(_progress.last + limit, allowed) + min(limit_s, MARGIN_S) - time.monotonic()


def stacks_file(run: Path) -> Path:
    """Return the path of this process's stacks file; its name is unique, since machines may share a run's folder."""
    return run / "logs" / STACKS.replace("*", f"{os.uname().nodename}-{os.getpid()}")


def new_stacks(run: Path, seen: set[Path]) -> list[Path]:
    """Return the stacks files that stalled processes have written to a run's logs since the last call.

    Args:
        run: The run directory, as this machine sees it.
        seen: Files that were returned before; new ones are added.
    """
    # A process that ends removes its file, and the last one the folder, which may happen during the iteration.
    files = []
    with suppress(FileNotFoundError):
        files = [path for path in (run / "logs").iterdir() if fnmatch(path.name, STACKS)]
    new = sorted(path for path in files if path not in seen and _holds_stacks(path))
    seen.update(new)
    return new


def _holds_stacks(path: Path) -> bool:
    """Return whether a file exists and is not empty; that of a running process is empty."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


class StallWatch:
    """Watches this process during `with` blocks, of any number of threads; the limit of the first block applies.

    The process is ended by faulthandler's C thread, which needs no interpreter lock, so that even a deadlock that holds
    the lock cannot prevent it. `faulthandler` has one timer per process: so this class has one instance, `watch`.
    """

    def __init__(self) -> None:
        self.ends_process = False
        """Whether this process is a flow's command, rather than a program or notebook that continues after a flow."""
        self._lock = threading.Lock()
        self._users = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: FileIO | None = None
        self._stalled = False
        self._suspended = False
        self._limits = (0.0, 0.0, 0.0)
        self._path = Path()

    @contextmanager
    def exit_on_stall(
        self, limit_s: float, stacks: Path, *, grace_s: float = 0.0, interpreter_s: float = math.inf
    ) -> Iterator[None]:
        """End this process with status 1 when its work stalls, after the stacks of all threads are in `stacks`.

        Args:
            limit_s: Seconds without a completed step that count as a stall; see `remaining_s`.
            stacks: File that is created, and removed at the end if it is empty.
            grace_s: Seconds between the stall and the end of the process, in which Python code may react.
            interpreter_s: Seconds without a running Python thread after which the process is ended, too.
        """
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._start(limit_s, stacks, grace_s, interpreter_s)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._stop()

    def _start(self, limit_s: float, stacks: Path, grace_s: float, interpreter_s: float) -> None:
        """Start the timer, and the thread that extends it.

        Args:
            limit_s: Seconds without a completed step that count as a stall.
            stacks: File for the stacks.
            grace_s: Seconds between the stall and the end of the process.
            interpreter_s: Seconds without a running Python thread after which the process is ended.
        """
        # There was no work before this: that time is not a gap.
        _progress.last, _progress.longest_gap_s = time.monotonic(), 0.0
        self._path, self._file = _open_stacks(stacks)
        self._ended, self._stalled = threading.Event(), False
        limits = self._limits = limit_s, grace_s, interpreter_s
        self._arm(*limits)
        self._thread = threading.Thread(
            target=self._rearm, args=(*limits, self._ended), name="stall-watch", daemon=True
        )
        self._thread.start()

    def _rearm(self, limit_s: float, grace_s: float, interpreter_s: float, ended: threading.Event) -> None:
        """Extend the timer while steps complete; a new timer for every step would cost a thread each.

        Args:
            limit_s: Seconds without a completed step that count as a stall.
            grace_s: Seconds between the stall and the end of the process.
            interpreter_s: Seconds without a running Python thread after which the process is ended.
            ended: Set when the last block has ended.
        """
        while not ended.wait(min(limit_s / 10, _MOST_LOOKS_S)):
            if remaining_s(limit_s) > 0 and not self._stalled and not self._suspended:
                self._arm(limit_s, grace_s, interpreter_s)

    def _arm(self, limit_s: float, grace_s: float, interpreter_s: float) -> None:
        assert self._file is not None
        # This thread itself extends the timer: if no Python thread can run, it expires after `interpreter_s`.
        timeout = min(max(remaining_s(limit_s), 0.0) + grace_s, interpreter_s)
        faulthandler.dump_traceback_later(timeout + 0.001, file=self._file, exit=True)

    def _stop(self) -> None:
        assert self._thread is not None
        assert self._file is not None
        self._ended.set()
        self._thread.join()
        if self._stalled and (self.ends_process or RUN_OF_DEPLOYMENT in os.environ):
            return  # the timer keeps running: it ends the process if that does not end by itself
        faulthandler.cancel_dump_traceback_later()
        written = self._file.tell()
        self._file.close()
        if not written:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: other processes have files in it
                self._path.parent.rmdir()

    @property
    def stalled(self) -> bool:
        """Return whether this process's work has stalled, so that some of its threads may never end."""
        return self._stalled

    def stop_process(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop this process as Ctrl-Z does; a handler of SIGTSTP. The time until it continues is not a stall.

        The timer must be cancelled: otherwise it would expire as soon as the process continues.
        """
        self._suspended, started = True, time.monotonic()
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        stopped_s = time.monotonic() - started
        _progress.last += stopped_s
        for key, deadline in list(_progress.open.items()):  # other threads may end steps meanwhile
            if key in _progress.open:
                _progress.open[key] = deadline + stopped_s
        self._suspended = False
        if self._users and not self._stalled:
            self._arm(*self._limits)

    def dump_stacks(self) -> Path:
        """Write the stacks of all threads to the file of the active watch, and return its path.

        From now on the process has to end: the timer is not extended any more.
        """
        assert self._file is not None
        self._stalled = True
        faulthandler.dump_traceback(self._file, all_threads=True)
        return self._path


def _open_stacks(path: Path) -> tuple[Path, FileIO]:
    """Open the stacks file; in the temporary folder on a worker where the run's folder cannot be created."""
    try:
        return path, _open_in_new_folder(path)
    except OSError:
        import tempfile

        path = Path(tempfile.gettempdir()) / path.name
        return path, FileIO(path, "w")


def _open_in_new_folder(path: Path) -> FileIO:
    """Open a file for writing in a folder that other processes on this machine may create and remove meanwhile."""
    for left in reversed(range(_MOST_OPENINGS)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return FileIO(path, "w")
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
    raise AssertionError("unreachable")


watch = StallWatch()


class StallCheck:
    """Raises an error when the work stalls, so that a process that can still do so cleans up."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._stacks: Path | None = None

    @property
    def stalled(self) -> bool:
        """Return whether the work has stalled, and `check` has raised."""
        return self._stacks is not None

    def check(self) -> None:
        """Raise `RunStoppedError` if no step has completed for longer than the limit; from then on in every thread."""
        with self._lock:
            if self._stacks is None:
                if remaining_s(self._limit_s) > 0:
                    return
                self._stacks = watch.dump_stacks()
        raise RunStoppedError(
            f"no request, command or rollout has completed for {self._limit_s:.0f} s or longer: {self._stacks} shows "
            "where every thread is; run the same command again to continue"
        )
