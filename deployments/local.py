"""Starts a Prefect server and a worker on one machine, with everything registered: `python -m deployments.local up`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Self

import orjson
import psutil
from pydantic import BaseModel, ConfigDict

from deployments.registration import POOL, ROOT, Registration
from rollmill.config.command_line import parse_command, report_errors
from rollmill.config.parameter import parameter
from rollmill.errors import InputError, ServingError
from rollmill.files.atomic import atomic_write_json
from rollmill.generation.lock import LOCK, lock_directory
from rollmill.inference.ports import PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.supervised_process import SupervisedProcess

PROG = "python -m deployments.local"
STATE, LOG = "desk.json", "desk.log"
_SERVER_READY_S, _WORKER_READY_S = 300.0, 120.0
_GRACE_S = 12.0
_LOOK_S = 0.5


class StateDirectory(BaseModel):
    """The folder of the server's database and the logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = parameter(ROOT / ".desk", "Desk", "Folder", "Of the database and the logs.", metavar="DIR")


class Up(StateDirectory, Registration):
    """Starts a Prefect server and a worker, registers everything, and returns when runs can be started."""

    host: str = parameter("127.0.0.1", "Desk", "Host", "Address that the server listens at.")
    port: int = parameter(4200, "Desk", "Port", "Of the server and its pages.", ge=1, le=65535)


class RunInForeground(Up):
    """Runs the Prefect server and the worker in the foreground, until the process is ended."""


class Down(StateDirectory):
    """Ends the server, the worker and its runs; unfinished runs continue after the next `up`."""


def up(parameters: Up) -> str:
    """Start `run` in the background; return instructions for the shell. Raises `ServingError` if it does not start."""
    process = _holder(parameters.folder)
    if process is None:
        process = _start(parameters)
    else:
        _register(parameters, _api(parameters.folder))
    api = _api(parameters.folder)
    return (
        f"{api.removesuffix('/api')}: the pages; process {process.pid}, logs in {parameters.folder}\n"
        f"export PREFECT_API_URL={api}    # then runs that are started in this shell are shown there, too\n"
    )


def _start(parameters: Up) -> psutil.Popen:
    parameters.folder.mkdir(parents=True, exist_ok=True)
    (parameters.folder / STATE).unlink(missing_ok=True)
    flags = [f"--{name}={value}" for name, value in parameters.model_dump().items() if value is not None]
    with (parameters.folder / LOG).open("wb") as log:
        running = psutil.Popen(
            [sys.executable, "-m", "deployments.local", "run", *flags],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    while not (parameters.folder / STATE).exists():
        if running.poll() is not None:
            output = _tail(parameters.folder / LOG).strip() or f"it ended with code {running.returncode}"
            raise ServingError(output.splitlines()[-1].removeprefix(f"{PROG}: "), details=output)
        time.sleep(0.1)
    return running


def down(parameters: Down) -> str:
    """End the processes that `up` started; return one line. Raises `ServingError` if they do not end."""
    process = _holder(parameters.folder)
    if process is None:
        return "nothing runs\n"
    process.terminate()
    try:
        process.wait(3 * _GRACE_S)
    except psutil.TimeoutExpired:
        raise ServingError(f"process {process.pid} does not end: see {parameters.folder / LOG}") from None
    return f"ended; what was recorded stays in {parameters.folder}\n"


def run(parameters: RunInForeground) -> NoReturn:
    """Keep server and worker running until this process ends, however it ends.

    Restarts one that ends. Raises `ServingError` if one of them does not start.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with lock_directory(parameters.folder, flag="--folder"), _Server(parameters) as server:
        _register(parameters, server.api)
        while True:
            with _worker(parameters, server.api) as worker:
                atomic_write_json(parameters.folder / STATE, {"api": server.api})
                while worker.returncode is None:
                    server.keep_up()
                    time.sleep(_LOOK_S)
            sys.stderr.write(f"the worker ended with code {worker.returncode}: another one is started\n")


class _Server:
    """Prefect's server as a context manager."""

    def __init__(self, parameters: Up) -> None:
        self.api = f"http://{parameters.host}:{parameters.port}/api"
        self._parameters = parameters
        self._log = parameters.folder / "server.log"

    def __enter__(self) -> Self:
        self._reservation = PortReservation(self._parameters.port)
        self._process = self._start()
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def keep_up(self) -> None:
        """Restart the server if it has ended; runs continue meanwhile. Raises `ServingError` if it does not start."""
        if self._process.returncode is not None:
            sys.stderr.write(f"the Prefect server ended with code {self._process.returncode}: it is started again\n")
            self._process.end()
            self._process = self._start()
            self._wait()

    def _start(self) -> SupervisedProcess:
        where = ["--host", self._parameters.host, "--port", str(self._parameters.port)]
        command = [sys.executable, "-m", "prefect", "server", "start", *where]
        pages = {"PREFECT_SERVER_UI_API_URL": "/api", "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false"}
        environment = _environment(self._parameters.folder) | pages
        return SupervisedProcess(command, log=self._log, environment=environment, grace_s=_GRACE_S)

    def _wait(self) -> None:
        _wait(self._process, lambda: healthy(self.api), _SERVER_READY_S, self._log, "the Prefect server")

    def _end(self) -> None:
        self._process.end()
        self._reservation.release()


def _register(parameters: Up, api: str) -> None:
    """Register in a separate process: Prefect reads its server's address when it is imported."""
    flags = parameters.model_dump(include=set(Registration.model_fields), exclude_none=True)
    command = [sys.executable, "-m", "deployments.registration", *(f"--{name}={flags[name]}" for name in flags)]
    environment = {**os.environ, **_environment(parameters.folder), "PREFECT_API_URL": api}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        output = (done.stderr or done.stdout).strip()
        raise ServingError(output.splitlines()[-1], details=output)


@contextmanager
def _worker(parameters: Up, api: str) -> Iterator[SupervisedProcess]:
    """Start a worker of the pool, and yield it once it is connected to the server."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "desk"]
    log = parameters.folder / "worker.log"
    before = log.stat().st_size if log.exists() else 0
    environment = {**_environment(parameters.folder), "PREFECT_API_URL": api}
    worker = SupervisedProcess(command, log=log, environment=environment, grace_s=_GRACE_S)
    try:
        _wait(worker, lambda: b"started!" in log.read_bytes()[before:], _WORKER_READY_S, log, "the worker")
        yield worker
    finally:
        worker.end()


def _wait(process: SupervisedProcess, is_ready: Callable[[], bool], timeout_s: float, log: Path, what: str) -> None:
    """Wait until a process is ready. Raises `ServingError` if it ends or takes too long.

    Args:
        process: The process.
        is_ready: Tells whether it is ready.
        timeout_s: Seconds to wait.
        log: Its log, for the error.
        what: Its name in the error.
    """
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if process.returncode is not None or time.monotonic() > deadline:
            raise ServingError(f"{what} does not start", details=_tail(log))
        time.sleep(0.2)


def _environment(folder: Path) -> dict[str, str]:
    """Return the variables for Prefect's home in the folder, unless the user has set PREFECT_HOME."""
    home = os.environ.get("PREFECT_HOME") or str(folder / "prefect")
    return {"PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def _holder(folder: Path) -> psutil.Process | None:
    """Return the process that holds the folder's lock; None if nothing runs."""
    try:
        with lock_directory(folder):
            return None
    except InputError:
        return psutil.Process(orjson.loads((folder / LOCK).read_bytes())["pid"])


def _api(folder: Path) -> str:
    return str(orjson.loads((folder / STATE).read_bytes())["api"])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


COMMANDS: Mapping[str, type[BaseModel]] = {"up": Up, "down": Down, "run": RunInForeground}


def main() -> None:
    """Run the command."""
    parameters = parse_command(COMMANDS, prog=PROG, description=__doc__ or "", examples="")
    if isinstance(parameters, RunInForeground):
        run(parameters)
    elif isinstance(parameters, Up):
        sys.stdout.write(up(parameters))
    elif isinstance(parameters, Down):
        sys.stdout.write(down(parameters))


if __name__ == "__main__":
    with report_errors(PROG):
        main()
