"""Commands in forks of one interpreter that has imported Prefect already, which takes a command of its own seconds.

A fork is a process as the command's own: with its folder, environment, output, signals and exit code. What is imported
here starts no thread and reads nothing of an environment that a test changes. Run as a program, it serves requests on
the socket whose number is its argument.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FIXED = ("PREFECT_", "PYTHON", "LD_", "DASK_", "MPL")
"""Environment variables that these begin with are read once, by the interpreter or by what it has imported."""
IMPORTED = (
    "prefect.main", "prefect.task_runners", "prefect_dask.task_runners", "aiohttp", "fsspec", "httpx", "numpy", "yaml",
    "jinja2", "PIL.Image", "rich.console", "matplotlib.backends.backend_agg", "matplotlib.figure",
    "matplotlib.font_manager", "rollmill.command_line",
)  # fmt: skip
"""Without Polars and pyarrow, which start threads."""
_LONGEST = 1 << 18


class WarmInterpreter:
    """Runs modules in forks of a process that has one environment's Prefect settings."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._control, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=ROOT, env={**environment, **one_thread}, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def run(
        self, module: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a module as `python -m` does; raises `AssertionError`, with what it said, where it takes too long."""
        asked = {"module": module, "arguments": list(arguments), "folder": str(folder), "environment": {**environment}}
        pipes = [os.pipe() for _ in range(3)]
        socket.send_fds(self._control, [json.dumps(asked).encode()], [writing for _, writing in pipes])
        for _, writing in pipes:
            os.close(writing)
        parts = [_Reader(reading) for reading, _ in pipes]
        for part in parts:
            part.join(timeout)
        pid, _, code = parts[2].text.partition(" ")
        if any(part.is_alive() for part in parts):
            os.kill(int(pid), signal.SIGKILL)
            raise AssertionError(f"still running after {timeout} s:\n{parts[0].text}\n{parts[1].text}")
        return subprocess.CompletedProcess([module, *arguments], int(code), parts[0].text, parts[1].text)

    def end(self) -> None:
        """End it; its forks are left alone."""
        self._control.close()
        self._process.wait()


class _Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, pipe: int) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._read: list[bytes] = []
        self.start()

    def run(self) -> None:
        while part := os.read(self._pipe, 1 << 16):
            self._read.append(part)
        os.close(self._pipe)

    @property
    def text(self) -> str:
        return b"".join(self._read).decode()


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for every request. Returns in the fork, with its request, and where there are no more requests."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    _report_end(key.fd, *running.pop(key.fd))
                    continue
                text, files, _, _ = socket.recv_fds(control, _LONGEST, 3)
                if not text:
                    return None
                if (pid := os.fork()) == 0:
                    for file in (*running, *(status for _, status in running.values())):
                        os.close(file)
                    _become(files)
                    return dict(json.loads(text))
                os.write(files[2], f"{pid} ".encode())
                running[handle := os.pidfd_open(pid)] = pid, files[2]
                selector.register(handle, selectors.EVENT_READ)
                for file in files[:2]:
                    os.close(file)


def _report_end(handle: int, pid: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(status, str(code).encode())
    os.close(status)
    os.close(handle)


def _become(files: Sequence[int]) -> None:
    """Give the fork its output."""
    for number, file in enumerate(files[:2], start=1):
        os.dup2(file, number)
    for file in files:
        os.close(file)


def _arrange(asked: Mapping[str, Any]) -> None:
    """Give the fork the folder, the environment and the module search path that the command would have."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [asked["folder"], *given, *(path for path in sys.path[1:] if path not in given)]
    sys.argv = [asked["module"], *asked["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lack the other threads"  # noqa: PTH208
    control = socket.socket(fileno=int(sys.argv[1]))
    asked = serve(control)
    control.close()
    if asked is not None:
        _arrange(asked)
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
