"""One harness for all flows: a Prefect server for the session, and jobs run as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from rollmill.inference.ports import PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.supervised_process import SupervisedProcess
from tests.prepared_python import prepared_python

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a job, with the session's Prefect server."""
    home = tmp_path_factory.mktemp("prefect")
    port = PortReservation(None)
    environment = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [str(prepared()), "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--port", str(port.port), "--log-level", "error"]
    server = SupervisedProcess(command, log=home / "server.log", environment=environment)
    api = f"http://127.0.0.1:{port.port}/api"
    deadline = time.monotonic() + 180
    while not healthy(api):
        assert server.returncode is None, (home / "server.log").read_text()
        assert time.monotonic() < deadline, "Prefect's server does not start"
        time.sleep(0.2)
    yield dict(os.environ, **environment, PREFECT_API_URL=api)
    server.end()
    port.release()


MACHINE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
RUNS = ("flows.", "rollmill.", "deployments.", "distributed.cli.", "prefect", "tests.flows.", "tests.jobs.training.",
        "uvicorn")  # fmt: skip
IMPORTED = """
    deployments.local deployments.registration deployments.automations blocks.kinds
    flows.agent_rollouts flows.collect_episodes flows.curate flows.improve flows.optimal_sampling
    rollmill.jobs.optimal_sampling.decoding rollmill.jobs.training.trainer rollmill.jobs.training.worker
    rollmill.services.evaluation rollmill.services.sandbox rollmill.verifiers.worker_process
    distributed.cli.dask_scheduler distributed.cli.dask_worker fastapi matplotlib.backends.backend_agg
    PIL.GifImagePlugin PIL.JpegImagePlugin prefect.cli.deploy prefect.cli.server prefect.cli.worker prefect.engine
    prefect.server.api.server prefect.utilities.visualization prefect.workers.process prefect_dask reasoning_gym
    transformers.models.llama.modeling_llama uvicorn.lifespan.on uvicorn.loops.auto
"""
READ_ONCE = ("HF_", "DASK_", "MPL", "PYTHON")
"""Prefixes of the environment variables that modules or the interpreter read when they are imported."""
_session = ExitStack()


@cache
def prepared() -> Path:
    """Return an interpreter that has already imported the modules of flows and of their subprocesses."""
    environment = os.environ | MACHINE | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return _session.enter_context(prepared_python(imported=IMPORTED, runs=RUNS, environment=environment))


@pytest.fixture(scope="session", autouse=True)
def end_prepared() -> Iterator[None]:
    """End it with the session, or with the last module that uses this fixture."""
    yield
    _session.close()
    prepared.cache_clear()


class Job:
    """Runs one flow as a user does, in a separate folder."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.environment = environment

    def command(self, *arguments: str, python: str = sys.executable) -> list[str]:
        return [python, "-m", f"flows.{self.name}", *arguments]

    def run(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end in a process forked after the imports, unless a changed variable affects these."""
        variables = {**self.environment, **environment}
        changed = [name for name, value in variables.items() if os.environ.get(name) != value]
        done = not any(name.startswith(READ_ONCE) and name != "PYTHONPATH" for name in changed)
        process = self._start(self.command(*arguments, python=str(prepared()) if done else sys.executable), environment)
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            raise AssertionError(f"still running after {timeout} s:\n{output}\n{errors}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def fail_each(self, *commands: Sequence[str], timeout: float = 300) -> Iterator[tuple[int, str]]:
        """Yield exit code and last line of each command, all run in one process; none may print a traceback."""
        command_lines = json.dumps([[f"flows.{self.name}", *each] for each in commands])
        done = subprocess.run(
            [prepared(), "-m", "tests.flows.one_process"], cwd=self.folder, env=self.environment,
            input=command_lines, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert "Traceback" not in done.stderr + "".join(printed for _, printed in results)
        for code, printed in results:
            yield code, printed.strip().splitlines()[-1]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start it as a user does, in a new interpreter: for tests of its end."""
        return self._start(self.command(*arguments), environment)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="session")
def stand_in(prefect_environment: dict[str, str]) -> dict[str, str]:
    """Let jobs start the scripted server instead of vLLM."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent / "stand_in")])
    kind = {
        "ROLLMILL_KIND": "cpu"
    }  # the scripted server claims to be the build for CPUs, which is refused on a machine with a GPU
    return prefect_environment | kind | {"ROLLMILL_VLLM_PYTHON": sys.executable, "PYTHONPATH": path}


@pytest.fixture
def sandboxes() -> Iterator[Path]:
    """Yield a folder for sandboxes that other users can enter, unlike pytest's temporary folders."""
    with TemporaryDirectory(prefix="sandboxes-of-a-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def script(**behaviour: Any) -> tuple[str, str]:
    """Return the flags that give the scripted server this behaviour."""
    return "--vllm_args", f"--script '{json.dumps(behaviour)}'"


def write_problems(path: Path, count: int) -> Path:
    """Write problems whose answers are the last digits of their numbers."""
    rows = [{"id": f"p{number}", "question": f"{number} modulo 10?", "answer": number % 10} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def journal_lines(folder: Path) -> list[bytes]:
    """Return the complete lines of every journal under a folder."""
    lines = [line for path in folder.rglob("rollouts/*.jsonl") for line in path.read_bytes().splitlines(keepends=True)]
    return [line for line in lines if line.endswith(b"\n")]


def processes_of(marker: str) -> list[psutil.Process]:
    """Return the running processes whose environment or command line contains a marker."""
    result = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                values = [*process.environ().values(), *process.cmdline()]
                if any(marker in value for value in values):
                    result.append(process)
        except psutil.Error:
            continue
    return result


def stop(process: subprocess.Popen[str], number: signal.Signals, timeout: float = 60.0) -> tuple[int, str]:
    """Send a signal and wait for the end; return the exit code and the output."""
    process.send_signal(number)
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output + errors
