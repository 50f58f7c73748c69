"""Ends a command's processes from outside: when it stands still after a signal, and when it is gone itself.

Run by path with nothing but the standard library: `guard.py OWNER_PID MARK PROG SIGNAL...`, as a child of the owner.
The owner's C signal handler writes the number of each signal into the pipe at stdin: that needs no interpreter lock, so
that it arrives from a process in a deadlock, too. `GRACE_S` after the first of the signals that are named, or at the
next one, the owner and all its descendants are killed. When the owner ends, for whatever reason, what it left is ended:
whoever has MARK in its environment, and their descendants. The byte 0 dismisses the guard.
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
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # -I -S leave this project out

from rollmill.terminal.process_supervisor import descendants, send

MARK = "ROLLMILL_GUARDED"
"""Environment variable of whatever a guarded process starts."""
GRACE_S = 15.0
"""From the first signal on, for an end of its own."""
_KEPT = b"ROLLMILL_KEPT="
"""In the environment of what a keeper ends, with a grace of its own; see `KeptProcess`."""
_PLAIN_S, _KEPT_S = 2.0, 12.0
"""From SIGTERM to SIGKILL for what the owner left, and for what has a keeper. With `GRACE_S` less than 20 s."""
_REPEATED_S = 0.3
"""Signals that follow each other so closely are one: `timeout` sends SIGTERM to the process and to its group."""
_LONGEST_KILL_S = 10.0
_DISMISSED = 0


class Guard:
    """What the process of the guard does."""

    def __init__(self, owner: int, mark: str, prog: str, numbers: set[int]) -> None:
        self._owner = owner
        self._mark = mark.encode()
        self._prog = prog
        self._numbers = numbers
        self._first: tuple[float, int] | None = None
        self._own_keeper = kept_by(environment_of(owner))

    def run(self) -> None:
        """Return when the owner and what it started are gone, or when it is dismissed."""
        try:
            gone = [os.pidfd_open(self._owner)]
        except ProcessLookupError:
            gone = []
        except (OSError, AttributeError):
            # Before Linux 5.3: the end of the pipe says the same, unless a child that was forked holds it.
            return self._watch(0, None)
        if gone and os.getppid() == self._owner:
            return self._watch(0, gone[0])
        return self._sweep(set(), _PLAIN_S, _KEPT_S)

    def _watch(self, pipe: int, gone: int | None) -> None:
        files = [pipe] if gone is None else [pipe, gone]
        while True:
            remaining_s = None if self._first is None else max(0.0, self._first[0] + GRACE_S - time.monotonic())
            ready, _, _ = select.select(files, [], [], remaining_s)
            if gone in ready:
                break
            heard = os.read(pipe, 4096) if pipe in ready else None
            if heard == b"":
                files.remove(pipe)
                if gone is None:
                    break
            elif heard and _DISMISSED in heard:
                return
            if (heard is None and not ready) or self._is_repeated_signal(heard or b""):
                self._end(at_once=bool(heard))
                return
        with suppress(OSError):
            os.close(2)  # whoever reads what the owner says need not wait for what is left of it
        self._sweep(set(), _PLAIN_S, _PLAIN_S if self._first else _KEPT_S)

    def _is_repeated_signal(self, heard: bytes) -> bool:
        """Note the first signal; return whether this is a later one."""
        now = time.monotonic()
        for number in heard:
            if number in self._numbers:
                if self._first is None:
                    self._first = (now, number)
                elif now - self._first[0] > _REPEATED_S:
                    return True
        return False

    def _end(self, *, at_once: bool) -> None:
        """Kill the owner, say so, and end the rest, which is asked first where nobody is in a hurry."""
        others = set(descendants(self._owner)) - {os.getpid()}
        send([self._owner], signal.SIGKILL)
        others |= set(descendants(*others))  # born meanwhile
        grace = 0.0 if at_once else _PLAIN_S
        with suppress(OSError):  # nobody may read it any more, and a terminal may be gone
            if select.select([], [2], [], 1.0)[1]:
                os.write(2, f"\n{self._prog}: stopped: run the same command again to continue\n".encode())
            os.close(2)
        self._sweep(others, grace, grace)

    def _sweep(self, others: set[int], plain_s: float, kept_s: float) -> None:
        """End `others`, those that are marked, and the descendants of both."""
        begun = time.monotonic()
        signalled: set[int] = set()
        while True:
            plain, kept = self._marked_processes()
            kept |= set(descendants(*kept)) if kept else set()
            plain = (plain | {pid for pid in others if alive(pid)}) - kept
            plain |= set(descendants(*plain)) - kept if plain else set()
            passed = time.monotonic() - begun
            if not plain | kept or passed > kept_s + _LONGEST_KILL_S:
                return
            send(list(plain - signalled), signal.SIGTERM)
            signalled |= plain
            if passed >= plain_s:
                send(list(plain), signal.SIGKILL)
            if passed >= kept_s:
                send(list(kept), signal.SIGKILL)
            time.sleep(0.05)

    def _marked_processes(self) -> tuple[set[int], set[int]]:
        """Return living processes with the mark: those without a keeper, those with one."""
        plain: set[int] = set()
        kept: set[int] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                environment = environment_of(int(entry.name))
                if self._mark in environment:  # a zombie's is empty
                    keeper = kept_by(environment)
                    # What keeps the owner itself (that of a Prefect worker, say) ends nothing that the owner left.
                    (kept if keeper and keeper != self._own_keeper else plain).add(int(entry.name))
        return plain, kept


def environment_of(pid: int) -> bytes:
    """Return the environment that a process was started with; nothing where it is gone, or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def kept_by(environment: bytes) -> bytes:
    """Return the mark of the keeper that ends a process with this environment; nothing where none does."""
    return next((part for part in environment.split(b"\0") if part.startswith(_KEPT)), b"")


def alive(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(owner: int, mark: str, prog: str, numbers: set[int]) -> None:
    """Watch one process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    Guard(owner, mark, prog, numbers).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], set(map(int, sys.argv[4:])))
