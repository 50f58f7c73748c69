"""Measures agent rollouts: seconds per command by kind of sandbox, attempts per second by workers, losses by kill -9.

Agents are scripted and change nothing, so that only the overhead is measured: sandboxes, commands, model calls, the
precheck of the grading, the journal. The sandbox service and the evaluation service run in separate processes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.contender_process import ROOT
from benchmarks.machine import machine
from benchmarks.scripted_agents import CONFIG, script_of
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.grading.pack import Pack
from rollmill.inference.ports import PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.docker import DockerHost
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import SandboxHost, SandboxSpec

FOLDER = ROOT / "examples/performance_problems"
CALLS = 4
"""Model calls of an attempt."""
START_S = 60.0
KILLED = {"flow": "the flow", "sandbox": "the sandbox service", "evaluation": "the evaluation service"}


class Workspace:
    """A folder that sandboxes' users can enter, and the environment of processes that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        self.environment = inherited | {
            "TMPDIR": str(folder), "PREFECT_HOME": str(folder / "prefect"), "NO_PROXY": "127.0.0.1,localhost",
        }  # fmt: skip


@contextmanager
def temporary_workspace() -> Iterator[Workspace]:
    """Yield a workspace that is removed after the block."""
    with tempfile.TemporaryDirectory(prefix="agent-rollouts-") as folder:
        yield Workspace(Path(folder))


class Service:
    """A service in a separate process, on a port that stays the same after restarts."""

    def __init__(self, workspace: Workspace, name: str, *flags: str) -> None:
        self._workspace, self._name = workspace, name
        self._port = PortReservation(None)
        self.address = f"127.0.0.1:{self._port.port}"
        self._command = [sys.executable, "-m", f"rollmill.services.{name}", "--port", str(self._port.port), *flags]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers. Raises `RuntimeError` with the end of its log."""
        log = self._workspace.folder / f"{self._name}.log"
        self._process = SupervisedProcess(self._command, log=log, environment=self._workspace.environment)
        deadline = time.monotonic() + START_S
        while not healthy(f"http://{self.address}"):
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the {self._name} service did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it by SIGKILL."""
        subprocess.run(["pkill", "-KILL", "-f", f"services.{self._name} --port {self._port.port}"], check=False)
        self._process.end()

    def close(self) -> None:
        """End it, and release its port."""
        self._process.end()
        self._port.release()


def time_commands(execute: Callable[[], object], count: int) -> list[float]:
    """Return the seconds of each of `count` calls."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        execute()
        taken.append(time.perf_counter() - started)
    return taken


def overheads(count: int, image: str) -> dict[str, list[float]]:
    """Return the seconds of each of `count` commands `true`, run in sequence, by kind of sandbox."""
    bare = ["bash", "-c", "true"]
    times = {"bare subprocess": time_commands(lambda: subprocess.run(bare, check=True), count)}
    with temporary_workspace() as workspace, ExitStack() as stack:
        os.environ["TMPDIR"] = str(workspace.folder)
        service = stack.enter_context(closing(Service(workspace, "sandbox", "--images", str(FOLDER / "images"))))
        hosts: dict[str, tuple[SandboxHost, str]] = {
            "bubblewrap": (BubblewrapHost(FOLDER / "images"), image),
            "service over bubblewrap": (RemoteHost(service.address), image),
        }
        if (engine := _docker(stack)) is not None:
            hosts["Docker"] = engine
        for name, (host, host_image) in hosts.items():
            with host, closing(host.start(SandboxSpec(image=host_image))) as sandbox:
                times[name] = time_commands(lambda: sandbox.execute("true"), count)
    return times


def _docker(stack: ExitStack) -> tuple[SandboxHost, str] | None:
    """Return a host on a new Docker engine; print why and return None if none can be started."""
    from tests.sandboxes.engine import IMAGE, import_image, running_engine, why_no_engine

    if why := why_no_engine():
        print(f"Docker is not measured: {why}")
        return None
    address = stack.enter_context(running_engine())
    import_image(address, FOLDER / "images/spanset", IMAGE)
    return DockerHost(docker_host=address), IMAGE


class Run(NamedTuple):
    """One run of the flow."""

    seconds: float
    """From its first journaled attempt to its last, scaled to all of them."""
    attempts: int
    lost: int
    """Attempts that failed because of the infrastructure."""


class Runs:
    """Runs the flow over both services."""

    def __init__(self, workspace: Workspace, url: str, sandboxes: Service, evaluations: Service, attempts: int) -> None:
        """Split the attempts over at most 10 problems.

        Args:
            workspace: Where the runs are written.
            url: Of the scripted model.
            sandboxes: The sandbox service.
            evaluations: The evaluation service.
            attempts: Of each run.
        """
        self._workspace, self._url = workspace, url
        self._services = ["--docker_server", sandboxes.address, "--eval_server", evaluations.address]
        self._tasks = min(10, attempts)
        self._samples = attempts // self._tasks
        self.attempts = self._tasks * self._samples

    def start(self, name: str, workers: int, *more: str) -> subprocess.Popen[bytes]:
        """Start the flow; its output goes to `<name>.log`."""
        flags = ["--dataset", str(FOLDER / "dataset.json"), "--max_tasks", str(self._tasks), "--config", CONFIG]
        flags += ["--samples_per_task", str(self._samples), "--model", "scripted", "--base_url", self._url]
        flags += ["--workers", str(workers), "--output", str(self._workspace.folder / f"{name}.json"), *self._services]
        with (self._workspace.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.agent_rollouts", "generate_multi", *flags, *more],
                cwd=ROOT, env=self._workspace.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> Run:
        """Wait for the end. Raises `RuntimeError` with the end of the log if the flow failed."""
        if process.wait(1800):
            raise RuntimeError((self._workspace.folder / f"{name}.log").read_text(errors="replace")[-2000:])
        examples = json.loads((self._workspace.folder / f"{name}.json").read_bytes())["examples"]
        return Run(0.0, len(examples), sum(example["error"] is not None for example in examples))

    def run(self, name: str, workers: int, *more: str) -> Run:
        """Run the flow; return its result, timed by its journal."""
        process = self.start(name, workers, *more)
        first = self.wait_for(name, 1, process)
        last = self.wait_for(name, self.attempts, process)
        run = self.finish(name, process)
        return run._replace(seconds=(last - first) * self.attempts / max(self.attempts - 1, 1))

    def lines(self, name: str) -> list[bytes]:
        """Return the journal's complete lines."""
        path = self._workspace.folder / name / "rollouts/0001.jsonl"
        return path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []

    def wait_for(self, name: str, count: int, process: subprocess.Popen[bytes]) -> float:
        """Wait until the journal has `count` lines, and return the time."""
        while len(self.lines(name)) < count and process.poll() is None:
            time.sleep(0.02)
        return time.perf_counter()


class Killed(NamedTuple):
    """The result of a run during which a process was killed."""

    journaled: int
    lost: int
    """Of the journaled attempts, missing at the end."""
    failed: int
    """Attempts with an error and no reward because of the kill."""
    remaining: int
    """Of the failed attempts, those that still have an error after the same command with --retry failed."""


def kill_in_the_middle(runs: Runs, name: str, kill: Callable[[subprocess.Popen[bytes]], None], workers: int) -> Killed:
    """Kill a process when a third is journaled, let the run end, retry failed attempts.

    Args:
        runs: Starts the flow.
        name: Of the run.
        kill: Kills, given the flow's process.
        workers: Concurrent sandboxes.
    """
    process = runs.start(name, workers)
    runs.wait_for(name, runs.attempts // 3, process)
    kill(process)
    before = runs.lines(name)
    if process.poll() is not None:
        process = runs.start(name, workers)
    failed = runs.finish(name, process).lost
    remaining = runs.finish(name, runs.start(name, workers, "--retry", "failed")).lost
    return Killed(len(before), len(set(before) - set(runs.lines(name))), failed, remaining)


def kills(
    runs: Runs, sandboxes: Service, evaluations: Service, workers: int, which: Sequence[str]
) -> dict[str, Killed]:
    """Return the results by the process that is killed.

    Args:
        runs: Starts the flow.
        sandboxes: The sandbox service.
        evaluations: The evaluation service.
        workers: Concurrent sandboxes.
        which: Keys of `KILLED`.
    """

    def kill_service(service: Service) -> Callable[[subprocess.Popen[bytes]], None]:
        def kill(_: subprocess.Popen[bytes]) -> None:
            service.kill()
            service.start()

        return kill

    def kill_flow(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    means = {"flow": kill_flow, "sandbox": kill_service(sandboxes), "evaluation": kill_service(evaluations)}
    return {KILLED[name]: kill_in_the_middle(runs, f"killed-{name}", means[name], workers) for name in which}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--commands", type=int, default=100, help="commands in each kind of sandbox")
    parser.add_argument("--attempts", type=int, default=320, help="attempts of the run with the most workers")
    parser.add_argument(
        "--fewer", type=int, default=80, help="attempts of the other runs, and of those that are killed"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], help="sandboxes at a time")
    parser.add_argument("--latency_s", type=float, default=0.5, help="the model's")
    parser.add_argument("--kill", nargs="+", choices=list(KILLED), default=list(KILLED), help="what is killed")
    options = parser.parse_args()
    where = machine()
    targets = Targets()
    report_overheads(overheads(options.commands, "spanset"), where)
    pack = Pack(FOLDER)
    with (
        temporary_workspace() as workspace,
        scripted_process(script_of(pack, ["nothing"], latency_s=options.latency_s)) as model,
    ):
        most = str(max(options.workers))
        sandbox_flags = ["--images", str(FOLDER / "images"), "--max_sandboxes", most, "--grading_sandboxes", most]
        with closing(Service(workspace, "sandbox", *sandbox_flags)) as sandboxes:
            evaluation_flags = [
                "--sandbox_server",
                sandboxes.address,
                "--dataset",
                str(FOLDER / "dataset.json"),
                "--workers",
                most,
            ]
            with closing(Service(workspace, "evaluation", *evaluation_flags)) as evaluations:
                runs, many = (
                    Runs(workspace, model.base_url, sandboxes, evaluations, count)
                    for count in (options.fewer, options.attempts)
                )
                report_workers(runs, many, options, targets)
                report_kills(kills(runs, sandboxes, evaluations, max(options.workers), options.kill), targets)
    targets.end(check=options.check)


def report_overheads(times: dict[str, list[float]], where: str) -> None:
    """Print the seconds of a command by kind of sandbox."""
    bare = statistics.median(times["bare subprocess"])
    rows = [
        {
            "": name,
            "median ms": f"{1e3 * statistics.median(taken):.1f}",
            "least ms": f"{1e3 * min(taken):.1f}",
            "over bare, median ms": f"{1e3 * (statistics.median(taken) - bare):.1f}",
        }
        for name, taken in times.items()
    ]
    show(f"a command on {where}", rows)


def report_workers(runs: Runs, many: Runs, options: argparse.Namespace, targets: Targets) -> None:
    """Run with each number of workers, and print the rates.

    Args:
        runs: For all but the greatest number of workers.
        many: For the greatest number, with more attempts.
        options: Of the command line.
        targets: Gets the number of lost attempts.
    """
    rows, lost = [], 0
    for workers in options.workers:
        run = (many if workers == max(options.workers) else runs).run(f"workers-{workers}", workers)
        lost += run.lost
        limit = f"{workers / (CALLS * options.latency_s):.2f}" if options.latency_s else "-"
        rows.append(
            {
                "workers": str(workers),
                "attempts": f"{run.attempts:,}",
                "attempts/s": f"{run.attempts / run.seconds:.2f}",
                "the model alone": limit,
                "failed on the way": str(run.lost),
            }
        )
    show(f"over both services, model latency {options.latency_s:g} s", rows)
    targets.at_most("attempts lost to the infrastructure", lost, 0)


def report_kills(outcomes: dict[str, Killed], targets: Targets) -> None:
    """Print the losses by kill -9."""
    names = {
        "journaled": "journaled then",
        "lost": "of those lost",
        "failed": "failed on the way",
        "remaining": "after --retry failed",
    }
    show(
        "kill -9 in the middle",
        [
            {"": what, **{title: str(getattr(killed, name)) for name, title in names.items()}}
            for what, killed in outcomes.items()
        ],
    )
    targets.at_most("journaled attempts lost", sum(killed.lost for killed in outcomes.values()), 0)
    targets.at_most("attempts that --retry failed leaves", sum(killed.remaining for killed in outcomes.values()), 0)


if __name__ == "__main__":
    main()
