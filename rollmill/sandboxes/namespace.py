"""Runs one command in new Linux namespaces, which end with it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from rollmill.sandboxes.followed_process import FollowedProcess, Output, read_available
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.sandbox import Limits, SandboxError
from rollmill.sandboxes.start_limits import end_first, limit_processes, limiting_command
from rollmill.sandboxes.strays import end_strays, marked_bwrap, wait_for_end
from rollmill.sandboxes.system_calls import filter_program

# The command can read this environment in /proc/1/environ: it must not contain the host's.
BWRAP_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_LONGEST_PROBE_S = 10.0


class Namespace(FollowedProcess):
    """A bwrap process, controlled from outside its namespaces.

    Its processes die when this process does, and when the thread that started it ends (the kernel counts the thread as
    the parent): start it and `finish` it in one thread.
    """

    def __init__(
        self,
        mark: str,
        launcher: Sequence[str],
        settings: Sequence[str],
        command: Sequence[str],
        limits: Limits | None = None,
        *,
        errors: CappedOutput | None = None,
    ) -> None:
        """Start bwrap. Raises `SandboxError` where it cannot be started.

        Args:
            mark: Unique among live sandboxes; `OWNER/...` where the files are in an `OwnedFolder` of that name.
            launcher: Command that starts bwrap, such as one that changes the user; may be empty.
            settings: Arguments of bwrap.
            command: The command to run in the sandbox.
            limits: Given to the namespace's first process before it starts the command; None for none. The command
                starts in `wait`.
            errors: See `FollowedProcess`.
        """
        self._mark = mark
        self._status, status_end = os.pipe()
        self._report = bytearray()
        self._first = -1
        self._limits = None if launcher else limits
        if limits:
            launcher = [*limiting_command(limits, other_user=bool(launcher)), *launcher]
        self._files = threading.Lock()
        held_end, self._start_pipe = os.pipe()  # bwrap's child waits for a byte, or for the end of this process
        options = ["--json-status-fd", str(status_end), "--block-fd", str(held_end)]
        try:
            with bwrap_arguments(mark, launcher, settings, command, options=options) as (arguments, files):
                inherited = (*files, status_end, held_end)
                super().__init__(arguments, env=BWRAP_ENVIRONMENT, pass_fds=inherited, errors=errors)
        except OSError as error:
            os.close(self._status)
            os.close(self._start_pipe)
            raise SandboxError(f"bubblewrap cannot be started: {error}", type_="start") from error
        finally:
            os.close(status_end)
            os.close(held_end)
        self.began = time.monotonic()
        self._watch(self._status)

    def kill(self) -> None:
        """Kill all its processes at once; may be called from another thread, and again."""
        with self._files, suppress(OSError):
            if self._first >= 0:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            if self._outside >= 0:
                signal.pidfd_send_signal(self._outside, signal.SIGKILL)

    def finish(self, output: Output) -> int | None:
        """Kill what is left, wait for it to exit, and return the return code; None where no command was started.

        Raises `SandboxError` where processes do not even end by SIGKILL.
        """
        try:
            self._ready(self._status)
            self.kill()
            wait_for_end(self._outside)
            self._ready(self._status)
            code = self._code()
            if self._first >= 0:
                self.kill()  # bwrap may have been killed before its child called PR_SET_PDEATHSIG
                wait_for_end(self._first)
            elif code is None:  # bwrap was killed before it reported its child, which may exist
                end_strays([self._mark])
        except SandboxError:
            self._close()
            raise
        super().finish(output)
        return code

    def _code(self) -> int | None:
        complete = self._report.rpartition(b"\n")[0]  # bwrap may have been killed in the middle of a line
        reports = [orjson.loads(line) for line in complete.splitlines() if line.strip()]
        codes = [int(line["exit-code"]) for line in reports if "exit-code" in line]
        return codes[0] if codes else None

    def _close(self) -> None:
        with self._files:
            super()._close()
            for file in (self._status, self._start_pipe, self._first):
                if file >= 0:
                    os.close(file)
            self._first = self._start_pipe = self._outside = -1

    def _ready(self, file: int) -> None:
        if file != self._status:
            return
        piece = read_available(file)
        if piece == b"":
            self._forget(file)
        self._report += piece or b""
        if self._first < 0 and b"\n" in self._report:
            pid = orjson.loads(self._report.split(b"\n", 1)[0])["child-pid"]
            self._first = _open_first(pid)
            if self._first >= 0:
                self._release(pid)
            self.began = time.monotonic()

    def _release(self, pid: int) -> None:
        """Give the first process its limits, and let it start the command."""
        end_first(pid)
        try:
            if self._limits:
                limit_processes(pid, self._limits)
        except ProcessLookupError:
            return
        except OSError as error:
            raise SandboxError(f"a sandbox cannot be given its limits: {error}", type_="start") from error
        with suppress(BrokenPipeError):
            os.write(self._start_pipe, b"x")


@contextmanager
def bwrap_arguments(
    mark: str,
    launcher: Sequence[str],
    settings: Sequence[str],
    command: Sequence[str],
    *,
    options: Sequence[str] = (),
    filters: bool = False,
) -> Iterator[tuple[list[str], list[int]]]:
    """Yield the arguments of a bwrap process with filtered system calls, and the files that it inherits.

    The files are open during the block.

    Args:
        mark: Mark of the sandbox in the process list.
        launcher: Command that starts bwrap, such as one that changes the user; may be empty.
        settings: Arguments of bwrap, passed by a file in memory: they may be long, and stay out of the process list.
        command: The command to run.
        options: Arguments of bwrap that are passed on its command line.
        filters: Whether the command may add filters of system calls of its own.
    """
    files = [_in_memory(b"".join(each.encode(errors="replace") + b"\0" for each in settings))]
    try:
        arguments = [*launcher, *marked_bwrap(mark), "--args", str(files[0]), *options]
        calls = filter_program(filters=filters)
        if calls:
            files.append(_in_memory(calls))
            arguments += ["--seccomp", str(files[1])]
        yield [*arguments, "--", *command], files
    finally:
        for file in files:
            os.close(file)


def installation_fault() -> str | None:
    """Return what to install where bubblewrap, or what gives it its limits, is missing; None where both are there."""
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed: install the package bubblewrap"
    missing = [name for name in ("prlimit", "setpriv") if not shutil.which(name)]
    return f"{missing[0]} is not installed: install the package util-linux" if missing else None


def sandbox_fault(owner: str, launcher: Sequence[str], settings: Sequence[str], command: Sequence[str]) -> str | None:
    """Return why bubblewrap cannot run the command here, and what to do; None where it returns 0.

    Args:
        owner: Name of the `OwnedFolder` that the probe belongs to.
        launcher: Command that starts bwrap; may be empty.
        settings: Arguments of bwrap.
        command: The command to run.
    """
    output = CappedOutput(10_000)
    probe = Namespace(f"{owner}/probe", launcher, settings, command)
    while not probe.wait(_LONGEST_PROBE_S, output):
        pass
    if probe.finish(output) == 0:
        return None
    return (
        f"bubblewrap cannot make a sandbox here ({output.text().strip()}): take its release 0.8 or later and allow "
        "user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined --security-opt systempaths=unconfined)"
    )


def _in_memory(content: bytes) -> int:
    file = os.memfd_create("arguments")
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _open_first(pid: int) -> int:
    """Return a pidfd of a namespace's first process; -1 where it has ended and its number may be another's."""
    try:
        file = os.pidfd_open(pid)
    except OSError:
        return -1
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        if re.search(r"^NSpid:(\t\d+)+\t1$", status, re.MULTILINE):
            return file
    os.close(file)
    return -1
