"""A guard process that ends a command's processes: when the command hangs after a signal, and after its end.

Run by path, with only the standard library: `guard.py OWNER_PID MARK PROG SIGNAL...`, as a child of the owner. The
owner's C signal handler writes the number of each signal to the pipe at stdin. That needs no interpreter lock, so that
it also works in a process with a deadlock. `GRACE_S` after the first of the given signals, or at the next one, the
owner and all its descendants are killed. When the owner ends, for any reason, the guard ends what it left behind: all
processes with MARK in their environment, and their descendants. The byte 0 dismisses the guard.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # not on the path because of -I -S

from rollmill.terminal.process_supervisor import descendants, send

MARK = "ROLLMILL_GUARDED"
"""Environment variable of all processes that a guarded process starts."""
GRACE_S = 15.0
"""Seconds from the first signal in which the owner may end by itself."""
_SUPERVISED = b"ROLLMILL_KEPT="
"""Environment variable of processes under a supervisor, which ends them with its own grace; see `SupervisedProcess`."""
_PLAIN_S, _SUPERVISED_S = 2.0, 12.0
"""Seconds from SIGTERM to SIGKILL for processes without and with a supervisor. With `GRACE_S` below 20 s."""
_REPEATED_S = 0.3
"""Signals within this time are one: `timeout` sends SIGTERM to the process and to its group."""
_LONGEST_KILL_S = 10.0
_DISMISSED = 0


class Guard:
    """The guard of one process.

    Args:
        owner: Process number of the guarded process.
        mark: Random text in the environment variable `MARK` of the processes that it starts.
        prog: Name of the command, for the message.
        numbers: Signals after which the owner has `GRACE_S` to end.
    """

    def __init__(self, owner: int, mark: str, prog: str, numbers: set[int]) -> None:
        self._owner = owner
        self._mark = mark.encode()
        self._prog = prog
        self._numbers = numbers
        self._first: tuple[float, int] | None = None
        self._own_supervisor = supervisor_mark(environment_of(owner))

    def run(self) -> None:
        """Watch until the owner and all that it started have ended, or until the guard is dismissed."""
        try:
            owner_file = os.pidfd_open(self._owner)  # becomes readable when the owner ends
        except ProcessLookupError:
            return self._sweep(set(), _PLAIN_S, _SUPERVISED_S)
        except (OSError, AttributeError):
            # Before Linux 5.3 the end of the pipe shows the owner's end, unless a forked child still has it open.
            return self._watch(0, None)
        if os.getppid() == self._owner:
            return self._watch(0, owner_file)
        # The owner has ended already, and its process number may belong to another process now.
        return self._sweep(set(), _PLAIN_S, _SUPERVISED_S)

    def _watch(self, pipe: int, owner_file: int | None) -> None:
        files = [pipe] if owner_file is None else [pipe, owner_file]
        while True:
            remaining_s = None if self._first is None else max(0.0, self._first[0] + GRACE_S - time.monotonic())
            ready, _, _ = select.select(files, [], [], remaining_s)
            if owner_file in ready:
                break
            signals = os.read(pipe, 4096) if pipe in ready else None
            if signals == b"":  # the pipe is closed
                files.remove(pipe)
                if owner_file is None:
                    break
            elif signals and _DISMISSED in signals:
                return
            # Nothing is ready: the grace period is over.
            if (signals is None and not ready) or self._is_repeated_signal(signals or b""):
                self._end(at_once=bool(signals))
                return
        with suppress(OSError):
            os.close(2)  # a reader of the owner's stderr need not wait for the processes that it left
        self._sweep(set(), _PLAIN_S, _PLAIN_S if self._first else _SUPERVISED_S)

    def _is_repeated_signal(self, signals: bytes) -> bool:
        """Record the first signal; return whether these contain a later one."""
        now = time.monotonic()
        for number in signals:
            if number in self._numbers:
                if self._first is None:
                    self._first = (now, number)
                elif now - self._first[0] > _REPEATED_S:
                    return True
        return False

    def _end(self, *, at_once: bool) -> None:
        """Kill the owner with a message, then end the rest: with SIGTERM first, unless `at_once`."""
        others = set(descendants(self._owner)) - {os.getpid()}
        send([self._owner], signal.SIGKILL)
        others |= set(descendants(*others))  # started meanwhile
        grace = 0.0 if at_once else _PLAIN_S
        with suppress(OSError):  # the reader or the terminal may have been closed
            if select.select([], [2], [], 1.0)[1]:
                os.write(2, f"\n{self._prog}: stopped: run the same command again to continue\n".encode())
            os.close(2)
        self._sweep(others, grace, grace)

    def _sweep(self, others: set[int], plain_s: float, supervised_s: float) -> None:
        """End `others`, all marked processes, and the descendants of both.

        Processes under a supervisor get no SIGTERM from here: the supervisor sends it when its owner ends, and gives
        them a grace period. They are killed only if that takes too long.
        """
        started = time.monotonic()
        signalled: set[int] = set()
        while True:
            plain, supervised = self._marked_processes()
            supervised |= set(descendants(*supervised)) if supervised else set()
            plain = (plain | {pid for pid in others if alive(pid)}) - supervised
            plain |= set(descendants(*plain)) - supervised if plain else set()
            elapsed = time.monotonic() - started
            if not plain | supervised or elapsed > supervised_s + _LONGEST_KILL_S:
                return
            send(list(plain - signalled), signal.SIGTERM)
            signalled |= plain
            if elapsed >= plain_s:
                send(list(plain), signal.SIGKILL)
            if elapsed >= supervised_s:
                send(list(supervised), signal.SIGKILL)
            time.sleep(0.05)

    def _marked_processes(self) -> tuple[set[int], set[int]]:
        """Return the living processes with the mark: those without a supervisor, and those with one."""
        plain: set[int] = set()
        supervised: set[int] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                environment = environment_of(int(entry.name))
                if self._mark in environment:  # a zombie's is empty
                    supervisor = supervisor_mark(environment)
                    # A supervisor of the owner itself (such as a Prefect worker's) does not end what the owner left.
                    is_supervised = bool(supervisor) and supervisor != self._own_supervisor
                    (supervised if is_supervised else plain).add(int(entry.name))
        return plain, supervised


def environment_of(pid: int) -> bytes:
    """Return the environment with which a process was started; empty if it has ended or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def supervisor_mark(environment: bytes) -> bytes:
    """Return the mark of the supervisor of a process with this environment; empty where there is none."""
    return next((part for part in environment.split(b"\0") if part.startswith(_SUPERVISED)), b"")


def alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(owner: int, mark: str, prog: str, numbers: set[int]) -> None:
    """Guard one process until it and all that it started have ended.

    Args:
        owner: Process number of the guarded process.
        mark: Random text in the environment variable `MARK` of the processes that it starts.
        prog: Name of the command, for the message.
        numbers: Signals after which the owner has `GRACE_S` to end.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    Guard(owner, mark, prog, numbers).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], set(map(int, sys.argv[4:])))
