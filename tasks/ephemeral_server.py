"""Starts a Prefect server for the time of one command, if no server is configured."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.events.worker import EventsWorker
from prefect.exceptions import FailedRun
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from rollmill.errors import RunStoppedError, ServingError
from rollmill.inference.ports import LOOPBACK, PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.terminal.interruption import look
from tasks.interruption import note_signals

_DRAIN_S = 10.0


@contextmanager
def desk_server() -> Iterator[None]:
    """Run Prefect's server while the block runs, unless `PREFECT_API_URL` names one.

    Prefect would start one itself, but that one outlives a process that is killed. Its records are in Prefect's usual
    database, so that `prefect server start` shows them later.
    Raises `ServingError` if it does not start in the time of Prefect's settings, and `RunStoppedError` for a failed
    flow whose exception a slow server did not return: with the message of the flow's state.
    """
    try:
        with note_signals():
            if PREFECT_API_URL.value():
                with _drained():
                    yield
                return
            with _temporary_server():
                yield
    except FailedRun as error:
        raise RunStoppedError(str(error)) from None


@contextmanager
def _temporary_server() -> Iterator[None]:
    settings = get_current_settings()
    reservation = PortReservation(None)
    api = f"http://{LOOPBACK}:{reservation.port}/api"
    environment = settings.to_environment_variables(exclude_unset=True) | {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": api,
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory"]
    command += ["prefect.server.api.server:create_app", "--host", LOOPBACK, "--port", str(reservation.port)]
    with tempfile.TemporaryDirectory(prefix="rollmill-prefect-") as folder:
        log = Path(folder) / "server.log"
        server = SupervisedProcess(
            [*command, "--log-level", "error", "--lifespan", "on"], log=log, environment=environment, grace_s=5.0
        )
        try:
            _wait(server, api, log, timeout_s=settings.server.ephemeral.startup_timeout_seconds)
            with temporary_settings({PREFECT_API_URL: api}), _drained():
                yield
        finally:
            server.end()
            reservation.release()


@contextmanager
def _drained() -> Iterator[None]:
    """Flush all of Prefect's logs and events to its server at the end of the block, before the server ends."""
    try:
        yield
    finally:
        APILogWorker.drain_all(timeout=_DRAIN_S)
        EventsWorker.drain_all(timeout=_DRAIN_S)


def _wait(server: SupervisedProcess, api: str, log: Path, *, timeout_s: float) -> None:
    """Wait until the server answers. Raises `ServingError` if it ends or is not ready in time.

    Args:
        server: Its process.
        api: URL of its API.
        log: Its log, for the error.
        timeout_s: Seconds to wait.
    """
    deadline = time.monotonic() + timeout_s
    while not healthy(api):
        look()
        if server.returncode is not None or time.monotonic() > deadline:
            why = "was not ready in time" if server.returncode is None else f"ended with code {server.returncode}"
            details = log.read_text(errors="replace")[-3000:]
            raise ServingError(f"Prefect's temporary server {why}; set PREFECT_API_URL to use another", details=details)
        time.sleep(0.1)
