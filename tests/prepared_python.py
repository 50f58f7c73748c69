"""A `python` that starts fast: each program runs in a fork of a process that has done the imports already.

Most of a command's time would go into importing torch and Prefect once more, and not into what a test wants to see. The
executable that `prepared_python` makes stands in a shell's `PATH` for `python`, and is the `sys.executable` of what it
runs: what its commands start, by multiprocessing too, has the same imports. What it is not prepared for, it leaves to
the real interpreter.

Not for tests of how processes end: a fork has the parent and the command line of the process that was forked.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import importlib
import marshal
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

_MOST_FILES = 64
_SPAWN = "from multiprocessing.spawn import spawn_main"
_CLIENT = '''\
#!{python} -IS
"""Hands a command to the process that is prepared for it, and ends as it ends."""
import marshal, os, signal, sys
from array import array
import _socket

given = sys.argv[2:] if sys.argv[1:2] in (["-B"], ["-u"]) else sys.argv[1:]
kind, what = (*given, "", "")[:2]
if not (kind == "-m" and what.startswith({runs!r}) or kind == "-c" and what.startswith({spawn!r})):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
files = [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{{fd}}")]
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect({address!r})
asked = marshal.dumps([given, os.getcwd(), dict(os.environ), sys.argv[0], files])
rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", files).tobytes())
server.sendmsg([len(asked).to_bytes(8, "little")], [rights])
server.sendall(asked)
pid = int.from_bytes(server.recv(4), "little")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(pid, number))
said = server.recv(4)
if not said:
    sys.exit("the prepared process is gone")
code = os.waitstatus_to_exitcode(int.from_bytes(said, "little"))
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
'''


_SANDBOXING = {"rollmill.sandboxes.system", "rollmill.verifiers.process_sandbox", "rollmill.verifiers.worker_process"}
"""Modules that show the interpreter's files in sandboxes: these know the real one."""


class _Sys:
    """`sys` with another `executable`."""

    def __init__(self, executable: str) -> None:
        self.executable = executable

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


class Request(NamedTuple):
    """A command, as an interpreter would be started for it."""

    arguments: list[str]
    cwd: str
    environment: dict[str, str]
    python: str
    """The executable's path."""
    files: list[int]
    """The numbers of its open files."""


@contextlib.contextmanager
def prepared_python(
    *,
    imported: str,
    runs: Sequence[str],
    environment: Mapping[str, str],
    interpreter: str | Path = sys.executable,
) -> Iterator[Path]:
    """An executable `python`, for the time of the block.

    `imported` names the modules that are imported before, in this environment; `runs` is how the names of those begin
    that are run with `-m`.
    """
    from rollmill.inference.supervised_process import SupervisedProcess
    from tests.waiting import wait_until

    interpreter = Path(interpreter).absolute()
    with TemporaryDirectory(prefix="prepared-") as folder:  # where sockets' names are not too long
        address, log, python = (Path(folder) / name for name in ("socket", "log", "python"))
        command = [str(interpreter), "-m", "tests.prepared_python", str(address), *imported.split()]
        server = SupervisedProcess(command, log=log, environment=environment, grace_s=1)
        try:
            wait_until(lambda: address.exists() or server.returncode is not None, timeout=300)
            assert server.returncode is None, log.read_text()
            settings = {"python": str(interpreter), "runs": tuple(runs), "spawn": _SPAWN, "address": str(address)}
            python.write_text(_CLIENT.format(**settings))
            python.chmod(0o755)
            yield python
        finally:
            server.end()


class Server:
    """Forks once for each command that it is asked for."""

    def __init__(self, address: str) -> None:
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{address}.new")
        self._listener.listen(64)
        Path(f"{address}.new").rename(address)
        self._running: dict[socket.socket, int] = {}

    def serve(self) -> Request:
        """For good; returns in every fork, with what it is to run."""
        while True:
            ready = select.select([self._listener, self._woken, *self._running], [], [])[0]
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._tell_of_ends()
            for client in [process for process in ready if process in self._running]:  # it was killed
                os.kill(self._running[client], signal.SIGKILL)
                os.waitpid(self._running.pop(client), 0)
                client.close()
            if self._listener in ready:
                client = self._listener.accept()[0]
                request, files = receive(client)
                pid = os.fork()
                if pid == 0:
                    client.close()
                    self._leave()
                    take_files(files, request.files)
                    return request
                for fd in files:
                    os.close(fd)
                self._running[client] = pid
                client.sendall(struct.pack("<i", pid))

    def _tell_of_ends(self) -> None:
        for client, pid in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._running[client]
                with contextlib.suppress(OSError):  # it was killed
                    client.sendall(struct.pack("<i", status))
                client.close()

    def _leave(self) -> None:
        """Makes a fork no server."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for file in (self._listener, *self._running):
            file.close()
        os.close(self._woken)
        os.close(self._wake)


def receive(client: socket.socket) -> tuple[Request, list[int]]:
    """What is asked, and its files."""
    length, ancillary, _, _ = client.recvmsg(8, socket.CMSG_SPACE(_MOST_FILES * 4))
    files = array.array("i")
    files.frombytes(ancillary[0][2])
    received = bytearray()
    while len(received) < int.from_bytes(length, "little"):
        received += client.recv(1 << 20)
    return Request(*marshal.loads(bytes(received))), list(files)


def take_files(files: list[int], numbers: list[int]) -> None:
    """Gives open files the numbers that they have where they come from."""
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD, 256) for fd in files]
    for fd in files:
        os.close(fd)
    for fd, number in zip(above, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)


def become(request: Request, paths: list[str]) -> None:
    """Makes this process what the interpreter would be that was started for it."""
    import multiprocessing
    import tempfile

    os.setsid()
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.environment)
    first = request.cwd if request.arguments[0] == "-m" else ""
    sys.path[:] = [first, *python_path(request.environment), *paths]
    sys.path_importer_cache.clear()
    sys.argv[:] = request.arguments[1:] if request.arguments[0] == "-m" else ["-c", *request.arguments[2:]]
    sys.orig_argv[:] = [request.python, *request.arguments]
    tempfile.tempdir = None
    multiprocessing.set_executable(request.python)
    if request.environment.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    if "prefect.context" in sys.modules:
        sys.modules["prefect.context"].refresh_global_settings_context()
    real, sys.executable = sys.executable, request.python
    for name in _SANDBOXING & sys.modules.keys():
        sys.modules[name].sys = _Sys(real)


def python_path(environment: Mapping[str, str]) -> list[str]:
    """The folders of `PYTHONPATH`."""
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


def main(address: str, imported: Sequence[str]) -> list[str]:
    """Serves; returns in every fork, with the interpreter's arguments."""
    paths = [path for path in sys.path if path not in ("", str(Path.cwd()), *python_path(os.environ))]
    gc.disable()  # what is imported is no garbage: to look for it takes a sixth of the time
    for name in imported:
        importlib.import_module(name)
    assert threading.active_count() == 1  # those of Polars' and PyArrow's allocators may stay behind
    gc.collect()
    gc.freeze()
    gc.enable()
    request = Server(address).serve()
    become(request, paths)
    return request.arguments


if __name__ == "__main__":
    [kind, what, *_] = main(sys.argv[1], sys.argv[2:])
    if kind == "-m":
        if not hasattr(sys.modules.get(what), "__path__"):  # of a package it is `__main__` that is run
            sys.modules.pop(what, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
