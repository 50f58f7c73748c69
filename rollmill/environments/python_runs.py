"""Run untrusted Python programs, each in a fresh sandbox."""

from __future__ import annotations

import base64
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rollmill.sandboxes.sandbox import Execution, Limits, Sandbox, SandboxError, SandboxHost, SandboxSpec

IMAGE = "python"
"""Name of the only image of `empty_images`."""
LIMITS = Limits(memory_mb=1024, processes=64, cpu_s=120.0, disk_mb=64, output_bytes=200_000)
"""Default limits of one run."""
TIMEOUT_S = 10.0
"""Default time limit of one run, in seconds."""

_PROGRAM, _STDIN = "/tmp/program.py", "/tmp/stdin"  # noqa: S108 - paths in the sandbox
_AT_ONCE = 90_000
"""Bytes in one command; as base64 120,000, below Linux's limit of 131,071 for one argument of a process."""
_WRITE_TIMEOUT_S = 60.0
# Not -I, which ignores PYTHONHASHSEED, so that the order of a set would change from run to run.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}


class SandboxedPython:
    """A `PythonRunner` over any sandbox host; thread-safe.

    Args:
        host: Starts the sandboxes.
        spec: The sandbox of every run; its image has bash, coreutils and python3.
        at_once: Concurrent runs, by default the number of cores, since more would use up each other's time limits.
            Waiting for a free slot does not count towards a run's time limit.
    """

    def __init__(self, host: SandboxHost, *, spec: SandboxSpec, at_once: int | None = None) -> None:
        self._host = host
        self._spec = spec
        self._slots = threading.BoundedSemaphore(at_once or os.cpu_count() or 1)

    @property
    def timeout_s(self) -> float:
        """Return the default time limit of a run, in seconds."""
        return self._spec.timeout_s

    def run(self, program: str, *, stdin: str = "", timeout_s: float | None = None) -> Execution:
        """Run Python source to its end; see `PythonRunner`.

        The hash seed is fixed, so that sets have the same order in every run. While the program runs, `stdin` is in no
        process's arguments and in no file, so that only the program's own processes can read it.
        """
        *writes, start = _commands(program.encode(errors="replace"), stdin.encode(errors="replace"))
        with self._slots:
            sandbox = self._host.start(self._spec)
            try:
                for command in writes:
                    _write(sandbox, command)
                return sandbox.execute(start, timeout_s=timeout_s, env=_ENVIRONMENT)
            finally:
                sandbox.close()


@contextmanager
def empty_images() -> Iterator[Path]:
    """Yield a folder of images for `BubblewrapHost` with one empty image, `IMAGE`, which suffices to run Python."""
    with tempfile.TemporaryDirectory(prefix="rollmill-images-") as folder:
        # With a .git of its own no repository is made of the image, whose files each sandbox would have to copy.
        (Path(folder) / IMAGE / ".git").mkdir(parents=True)
        yield Path(folder)


@contextmanager
def bubblewrap_python(
    *,
    limits: Limits = LIMITS,
    timeout_s: float = TIMEOUT_S,
    at_once: int | None = None,
    root: Path | None = None,
    packages: Sequence[str] = (),
) -> Iterator[SandboxedPython]:
    """Yield a runner of Python in bubblewrap on this machine, and close it at the end of the block.

    Raises `InputError` if bubblewrap is missing.

    Args:
        limits: Limits of each sandbox.
        timeout_s: Default time limit of a run, in seconds.
        at_once: Concurrent runs; by default the number of cores.
        root: Folder for the sandboxes' files, see `BubblewrapHost`.
        packages: Distributions that Python has in the sandboxes, see `BubblewrapHost`.
    """
    from rollmill.sandboxes.bubblewrap import BubblewrapHost

    spec = SandboxSpec(image=IMAGE, timeout_s=timeout_s, limits=limits)
    with empty_images() as images, BubblewrapHost(images, root=root, packages=packages) as host:
        yield SandboxedPython(host, spec=spec, at_once=at_once)


def _commands(program: bytes, stdin: bytes) -> list[str]:
    """Return the shell commands that write the two files, as few as possible, and last the one that runs the program.

    A command's arguments are readable by all processes that it starts. Standard input is therefore written by separate
    processes, which have ended before the program starts.
    """
    commands: list[list[str]] = [[]]
    room = _AT_ONCE
    for path, content in ((_STDIN, stdin), (_PROGRAM, program)):
        commands[-1].append(f": > {path}")
        while content:
            piece, content = content[:room], content[room:]
            commands[-1].append(f"printf %s {base64.b64encode(piece).decode()} | base64 -d >> {path}")
            room -= len(piece)
            if room == 0:
                commands.append([])
                room = _AT_ONCE
    if stdin and commands[-1]:
        commands.append([])  # the last command's arguments, which the program can read, must not contain stdin
    commands[-1] += [f"exec < {_STDIN}", f"rm {_STDIN}", f"exec python3 -s -B {_PROGRAM}"]
    return [f"set -o pipefail; {' && '.join(each)}" for each in commands]


def _write(sandbox: Sandbox, command: str) -> None:
    done = sandbox.execute(command, timeout_s=_WRITE_TIMEOUT_S)
    if done.returncode:
        message = done.output.strip()[-200:] or f"return code {done.returncode}"
        raise SandboxError(
            f"a program cannot be written in a sandbox: {message}", type_="contents", details=done.output
        )
