"""Notices that this process's work stands still, keeps the stacks of all threads, and ends the process if it must.

Whatever does a step of work that has a time limit of its own (a request, a command in a sandbox, loading a model) does
it within `TimedStep`; what has none (a decoding step, a rollout) calls `note_progress`. A process in which nothing
completes although the limits of all open steps have passed is stuck: in an endless call, a deadlock, a lost wake-up.
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
"""Added to a limit, or the limit once more where that is less: for what comes between two steps."""
CLEANUP_S = 30.0
"""How long a stalled process may take to end in order before it is ended."""
INTERPRETER_S = 240.0
"""A worker in which no Python thread runs for so long is ended: before Dask (5 minutes), which would keep no stacks."""
STACKS = "stalled.*.txt"
"""Names of the files, in a run's folder of logs, that hold the stacks of a process that stood still."""
RUN_OF_DEPLOYMENT = "PREFECT__FLOW_RUN_ID"
"""The environment variable that Prefect sets for the process of a deployment's run."""
_GAP_FACTOR = 3.0
_MOST_LOOKS_S = 5.0
_MOST_OPENINGS = 10


class _Progress:
    """When this process's work last completed a step, and until when open ones may take.

    Changed without a lock: each change is one operation of the interpreter.
    """

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.longest_gap_s = 0.0
        self.open: dict[int, float] = {}


_progress = _Progress()


def note_progress() -> None:
    """Record that a step of work has completed."""
    now = time.monotonic()
    gap = now - _progress.last
    if gap > _progress.longest_gap_s:
        _progress.longest_gap_s = gap
    _progress.last = now


class TimedStep:
    """A block that ends within `limit_s` by a limit of its own, and whose end is progress."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def __enter__(self) -> None:
        _progress.open[id(self)] = time.monotonic() + self._limit_s

    def __exit__(self, *raised: object) -> None:
        _progress.open.pop(id(self), None)
        _progress.last = time.monotonic()  # without `note_progress`: what has declared its limit was no gap


def remaining_s(limit_s: float) -> float:
    """Return the seconds until the work counts as stalled; negative once it does.

    A gap between steps that ended by itself shows that gaps may be as long: up to three times as long is no stall.
    """
    limit = max(limit_s, _GAP_FACTOR * _progress.longest_gap_s)
    allowed = max(list(_progress.open.values()), default=0.0)
    return max(_progress.last + limit, allowed) + min(limit_s, MARGIN_S) - time.monotonic()


def stacks_file(run: Path) -> Path:
    """Return where this process writes its stacks: a run's folder may be shared by many machines."""
    return run / "logs" / STACKS.replace("*", f"{os.uname().nodename}-{os.getpid()}")


def new_stacks(run: Path, seen: set[Path]) -> list[Path]:
    """Return the files of stacks that stalled processes have left in a run's logs since the last call.

    Args:
        run: the run's folder; only what its machine sees of it is found.
        seen: files that were returned before; new ones are added.
    """
    # Files and folder go while this looks, and the glob of a folder that goes is an error: a process that ends
    # removes its own file, and the last one the folder.
    files = []
    with suppress(FileNotFoundError):
        files = [path for path in (run / "logs").iterdir() if fnmatch(path.name, STACKS)]
    new = sorted(path for path in files if path not in seen and _holds_stacks(path))
    seen.update(new)
    return new


def _holds_stacks(path: Path) -> bool:
    """Return whether a file is there and is not empty, as a running process's own is."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


class StallWatch:
    """Watches this process for the time of `with` blocks, of any number of threads; the first one's limit counts.

    The process is ended from outside Python (a C thread that needs no interpreter lock), so that it ends even where a
    deadlock holds that lock. `faulthandler` has one timer per process, and so this class has one instance, `watch`.
    """

    def __init__(self) -> None:
        self.ends_process = False
        """Whether this process is a flow's command, not a program or notebook that calls flows and then goes on."""
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
            limit_s: seconds without a completed step that count as a stall; see `remaining_s`.
            stacks: file that is created, and removed at the end unless it was needed.
            grace_s: seconds between the stall and the end of the process, for whoever notices it in Python.
            interpreter_s: seconds in which no Python thread runs after which the process is ended, too.
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
        # Nothing was to be done before: that was no gap.
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
        """Move the deadline on while steps complete; a timer for every step would cost a thread each."""
        while not ended.wait(min(limit_s / 10, _MOST_LOOKS_S)):
            if remaining_s(limit_s) > 0 and not self._stalled and not self._suspended:
                self._arm(limit_s, grace_s, interpreter_s)

    def _arm(self, limit_s: float, grace_s: float, interpreter_s: float) -> None:
        assert self._file is not None
        timeout = min(max(remaining_s(limit_s), 0.0) + grace_s, interpreter_s)
        faulthandler.dump_traceback_later(timeout + 0.001, file=self._file, exit=True)

    def _stop(self) -> None:
        assert self._thread is not None
        assert self._file is not None
        self._ended.set()
        self._thread.join()
        if self._stalled and (self.ends_process or RUN_OF_DEPLOYMENT in os.environ):
            return  # the process is to end, and is ended if it does not: the timer goes on
        faulthandler.cancel_dump_traceback_later()
        written = self._file.tell()
        self._file.close()
        if not written:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # others have files there
                self._path.parent.rmdir()

    @property
    def stalled(self) -> bool:
        """Whether this process stood still, so that threads of it may never end."""
        return self._stalled

    def stop_process(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop this process as Ctrl-Z does, for as handler of SIGTSTP; the time until it goes on is no stall.

        The timer's own thread would find its time passed before any other runs.
        """
        self._suspended, begun = True, time.monotonic()
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        stopped_s = time.monotonic() - begun
        _progress.last += stopped_s
        for key, until in list(_progress.open.items()):  # other threads end steps meanwhile
            if key in _progress.open:
                _progress.open[key] = until + stopped_s
        self._suspended = False
        if self._users and not self._stalled:
            self._arm(*self._limits)

    def dump_stacks(self) -> Path:
        """Write the stacks of all threads to the file of the watch that is on, and return its path.

        From now on the process has to end: what is left of the time until then is not extended any more.
        """
        assert self._file is not None
        self._stalled = True
        faulthandler.dump_traceback(self._file, all_threads=True)
        return self._path


def _open_stacks(path: Path) -> tuple[Path, FileIO]:
    """Open the file for stacks, in the temporary folder where a run's folder does not exist on a cluster's worker."""
    try:
        return path, _open_in_new_folder(path)
    except OSError:
        import tempfile

        path = Path(tempfile.gettempdir()) / path.name
        return path, FileIO(path, "w")


def _open_in_new_folder(path: Path) -> FileIO:
    """Open a file for writing, in a folder that other processes of this machine make and remove meanwhile."""
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
    """Raises in Python where the work stalls, for a process that can still end in order."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._stacks: Path | None = None

    @property
    def stalled(self) -> bool:
        """Whether it has raised."""
        return self._stacks is not None

    def check(self) -> None:
        """Raise `RunStoppedError` where no step has completed for longer than the limit, in every thread that asks."""
        with self._lock:
            if self._stacks is None:
                if remaining_s(self._limit_s) > 0:
                    return
                self._stacks = watch.dump_stacks()
        raise RunStoppedError(
            f"no request, command or rollout has completed for {self._limit_s:.0f} s or longer: {self._stacks} shows "
            "where every thread is; run the same command again to continue"
        )
