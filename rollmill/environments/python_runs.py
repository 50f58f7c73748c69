"""Runs Python programs that nobody vouches for, each in a fresh sandbox."""

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
"""The one image of `empty_images`."""
LIMITS = Limits(memory_mb=1024, processes=64, cpu_s=120.0, disk_mb=64, output_bytes=200_000)
"""Of one run, where nothing else is said."""
TIMEOUT_S = 10.0
"""Of one run, where nothing else is said."""

_PROGRAM, _STDIN = "/tmp/program.py", "/tmp/stdin"  # noqa: S108 - of the sandbox
_AT_ONCE = 90_000
"""Bytes in one command; 120,000 as base64, below the 131,071 that one argument of a process may have."""
_WRITE_TIMEOUT_S = 60.0
# With -I, Python would draw a new hash seed for every run: the order of a set would change from run to run.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}


class SandboxedPython:
    """A `PythonRunner` over any host of sandboxes; may be used by many threads.

    `spec`: of every run's sandbox, whose image has bash, coreutils and python3. `at_once`: runs at a time, as many as
    there are cores where None; more would eat into each other's time limits. Waiting for a place is no run's time.
    """

    def __init__(self, host: SandboxHost, *, spec: SandboxSpec, at_once: int | None = None) -> None:
        self._host = host
        self._spec = spec
        self._places = threading.BoundedSemaphore(at_once or os.cpu_count() or 1)

    @property
    def timeout_s(self) -> float:
        """Of a run that names none."""
        return self._spec.timeout_s

    def run(self, program: str, *, stdin: str = "", timeout_s: float | None = None) -> Execution:
        """Runs Python source to its end; see `PythonRunner`.

        The order of sets and dictionaries is the same in every run. `stdin` is in no list of processes and in no file
        once the program runs: until it is read, the program's processes alone can get at it.
        """
        *writes, start = _commands(program.encode(errors="replace"), stdin.encode(errors="replace"))
        with self._places:
            sandbox = self._host.start(self._spec)
            try:
                for command in writes:
                    _write(sandbox, command)
                return sandbox.execute(start, timeout_s=timeout_s, env=_ENVIRONMENT)
            finally:
                sandbox.close()


@contextmanager
def empty_images() -> Iterator[Path]:
    """A folder of images for `BubblewrapHost` with one that is empty, `IMAGE`: bubblewrap needs no more for Python."""
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
    """Python on this machine by bubblewrap, for the length of the block; `root` and `packages` as `BubblewrapHost`'s.

    Raises `InputError` where bubblewrap is missing.
    """
    from rollmill.sandboxes.bubblewrap import BubblewrapHost

    spec = SandboxSpec(image=IMAGE, timeout_s=timeout_s, limits=limits)
    with empty_images() as images, BubblewrapHost(images, root=root, packages=packages) as host:
        yield SandboxedPython(host, spec=spec, at_once=at_once)


def _commands(program: bytes, stdin: bytes) -> list[str]:
    """What writes the two files, as few commands as hold them, and last what starts the program.

    A command can be read by all processes that it starts: what comes on standard input is written by others, which are
    gone when the program starts.
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
        commands.append([])
    commands[-1] += [f"exec < {_STDIN}", f"rm {_STDIN}", f"exec python3 -s -B {_PROGRAM}"]
    return [f"set -o pipefail; {' && '.join(each)}" for each in commands]


def _write(sandbox: Sandbox, command: str) -> None:
    done = sandbox.execute(command, timeout_s=_WRITE_TIMEOUT_S)
    if done.returncode:
        said = done.output.strip()[-200:] or f"return code {done.returncode}"
        raise SandboxError(f"a program cannot be written in a sandbox: {said}", type_="contents", details=done.output)
