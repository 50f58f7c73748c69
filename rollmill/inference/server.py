"""A vLLM server as a child process: start it, wait until it is ready, restart it when it dies, end it."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from rollmill.errors import InputError, ServingError
from rollmill.inference.adapter import Adapter, adapter_arguments
from rollmill.inference.endpoints import Endpoint
from rollmill.inference.machine import length_arguments, machine_arguments
from rollmill.inference.ports import LOOPBACK, PortReservation
from rollmill.inference.probe import NotAnsweringError, check_model, healthy
from rollmill.inference.server_log import ServerLog
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.inference.visible_gpus import find_gpus
from rollmill.inference.vllm_install import InstalledVllm, check_devices, installed_vllm
from rollmill.terminal.interruption import look
from rollmill.terminal.stall_watch import note_progress

log = logging.getLogger(__name__)

SERVER_ENVIRONMENT = Path(".venv-vllm/bin/python")
"""Python of the server's environment, which `make setup` creates, relative to the project."""

_WATCH_S = 0.1


class ServerConfig(BaseModel):
    """Configuration of inference servers on this machine: everything except the model."""

    model_config = ConfigDict(frozen=True)

    python: str = ""
    """Interpreter of the environment with vLLM; empty: `ROLLMILL_VLLM_PYTHON`, or the project's `.venv-vllm`, or this
    interpreter."""
    module: str = ""
    """Module to run in place of vLLM's API server, with the same arguments; empty for vLLM."""
    arguments: tuple[str, ...] = ()
    """More arguments for the server, after ours: of repeated ones the last counts."""
    environment: dict[str, str] = Field(default_factory=dict)
    startup_timeout_s: float = Field(default=1800.0, gt=0)
    max_restarts: int = Field(default=3, ge=0)
    """How often a server that dies during a run is started again."""
    grace_s: float = Field(default=10.0, ge=0)
    """Seconds between SIGTERM and SIGKILL."""

    def interpreter(self) -> str:
        """Return the Python interpreter of the server. Raises `InputError` where the configured one does not exist."""
        named = self.python or os.environ.get("ROLLMILL_VLLM_PYTHON", "")
        if named:
            if not os.access(named, os.X_OK):
                raise InputError(
                    f"the inference server's Python {named!r} does not exist: name the right one, or run `make setup`"
                )
            return named
        project_python = Path(__file__).parents[2] / SERVER_ENVIRONMENT
        return str(project_python) if project_python.exists() else sys.executable

    def vllm(self) -> InstalledVllm:
        """Return the interpreter's vLLM. Raises `ServingError` where it has none, and as `check_devices` does."""
        installed = installed_vllm(self.interpreter(), self.environment)
        check_devices(installed, os.environ | self.environment)
        return installed


class ModelServer:
    """A vLLM server of one model, with any adapters, on one local port; a context manager.

    It is ready when `/health` answers and `/v1/models` lists every name. A server that dies is started again, at most
    `max_restarts` times: meanwhile its endpoint is `recovering`, and after the last failure it has a `fatal_error`.

    Args:
        config: How this machine runs vLLM.
        model_path: Directory or hub id of the base model.
        model_name: Name in requests: of the adapter, if there is one, otherwise of the base model.
        log_path: File to which the server's output is appended.
        adapter: LoRA adapter that is served as `model_name`. The base model is then `<model_name>-base`, or has the
            names in `also` without an adapter.
        also: Further names, each of an adapter or (None) of the base model.
        port: Local port; None for a free one.
        api_key: Key with which to ask the server for its models.
        is_given_up: Returns True when the server is not needed any more: a start then ends early, without an error.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        model_path: str,
        model_name: str,
        log_path: Path,
        adapter: Adapter | None = None,
        also: Mapping[str, Adapter | None] = MappingProxyType({}),
        port: int | None = None,
        api_key: SecretStr | None = None,
        is_given_up: Callable[[], bool] | None = None,
    ) -> None:
        self._config = config
        self._is_given_up = is_given_up or (lambda: False)
        self._model_path = model_path
        self._model_name = model_name
        self._models = {model_name: adapter, **also}
        self._log_path = log_path
        self._port = port
        self._api_key = api_key
        self._process: SupervisedProcess | None = None
        self._installed: InstalledVllm | None = None
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="model-server-watcher", daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        self._reservation = PortReservation(self._port)
        self.endpoint = Endpoint(f"http://{LOOPBACK}:{self._reservation.port}/v1")
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        try:
            self._watcher.join()  # before the process is ended: the watcher may be restarting it just now
        finally:
            self._end()

    def give_up(self) -> None:
        """End a start that waits in another thread, which then returns as if the server were ready."""
        self._ending.set()

    @property
    def pid(self) -> int:
        """Return the number of the process group."""
        assert self._process is not None
        return self._process.pid

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Return the server's command and environment. Raises `ServingError` as `check_devices` does."""
        python, module = self._config.interpreter(), self._config.module
        if module:
            more, environment = machine_arguments(self._model_path)
            command = [python, "-m", module, "--model", self._model_path]
        else:
            installed = self._vllm()
            more, environment = machine_arguments(self._model_path, on_gpu=installed.build != "cpu")
            environment |= installed.environment(os.environ | self._config.environment)
            command = installed.command(self._model_path)
            if installed.fits_length:
                more = [*length_arguments(self._config.arguments), *more]
        bare = [name for name, adapter in self._models.items() if adapter is None] or [f"{self._model_name}-base"]
        adapters = {name: adapter for name, adapter in self._models.items() if adapter is not None}
        command += ["--served-model-name", *bare, *adapter_arguments(adapters)]
        command += ["--host", LOOPBACK, "--port", str(self._reservation.port)]
        command += [*more, *self._config.arguments]
        return command, environment | self._config.environment

    def _vllm(self) -> InstalledVllm:
        """Return the installed vLLM, determined once: a restart uses the same."""
        if self._installed is None:
            installed = self._config.vllm()
            gpus = find_gpus(os.environ | self._config.environment)
            log.info("%s serves on %s", installed.package, ", ".join(gpus.models) or "the CPU")
            self._installed = installed
        return self._installed

    def _start(self) -> None:
        command, environment = self._command()
        started = time.monotonic()
        log.info("starting %s, log in %s", shlex.join(command), self._log_path)
        output = ServerLog(self._log_path)
        self._process = SupervisedProcess(
            command, log=self._log_path, environment=environment, grace_s=self._config.grace_s
        )
        while not self._ready():
            look()
            if self._process.returncode is not None:
                raise output.death(self._process.returncode, "while starting")
            if time.monotonic() - started > self._config.startup_timeout_s:
                raise ServingError(
                    f"the server was not ready after {self._config.startup_timeout_s:.0f} s: see {self._log_path}",
                    details=output.last_lines(),
                )
            if self._ending.wait(0.25) or self._is_given_up():
                return
            note_progress()  # a start has its own timeout; requests that wait for it are not stalled
        log.info("%s is ready at %s after %.0f s", self._model_name, self.endpoint.base_url, time.monotonic() - started)
        if lengths := output.reduced_length():
            log.warning(
                "%s has a context of %d tokens, prompt and completion: its %d do not fit into memory",
                self._model_name,
                lengths[1],
                lengths[0],
            )

    def _ready(self) -> bool:
        if not healthy(self.endpoint.base_url):
            return False
        key = self._api_key.get_secret_value() if self._api_key else None
        try:
            for name in self._models:
                check_model(self.endpoint.base_url, (name,), api_key=key)
        except NotAnsweringError:
            return False
        return True

    def _watch(self) -> None:
        while not self._ending.is_set():
            process = self._process
            assert process is not None
            if process.wait(_WATCH_S) is None or self._ending.is_set():
                continue
            self.endpoint.recovering = True
            process.end()
            if not self._restart(process.returncode):
                return

    def _restart(self, code: int | None) -> bool:
        if self.restarts >= self._config.max_restarts:
            self.endpoint.fatal_error = (
                f"the server ended with code {code} after {self.restarts} restarts: see {self._log_path}"
            )
            return False
        self.restarts += 1
        log.warning("the server ended with code %s; restart %s of %s", code, self.restarts, self._config.max_restarts)
        try:
            self._start()
        except Exception as error:  # any error: requests must not wait for a server that will not be available
            self.endpoint.fatal_error = " ".join(str(error).split())
            return False
        self.endpoint.recovering = False
        return True

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
        self._reservation.release()
