"""Measures the scaling of rejection sampling on 1, 2 and 4 Dask workers: the rate of n over n times the rate of one."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.contender_process import scratch_folder
from benchmarks.contenders.work import ROLLOUTS, in_whole_problems
from benchmarks.flow_process import DeskFlow, FlowRun
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.generation.job import GenerationJob
from rollmill.inference.ports import LOOPBACK, PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.script import Script
from rollmill.inference.supervised_process import SupervisedProcess

EFFICIENCY = 0.9
START_S = 180.0
BLOCK = "scaling"
SAVE_BLOCK = "import sys; from blocks.cluster import DaskCluster; DaskCluster(scheduler=sys.argv[1]).save(sys.argv[2])"


class Costs(NamedTuple):
    """Resources that Prefect's server and Dask's scheduler have used."""

    server_s: float
    """CPU seconds."""
    scheduler_s: float
    events: int
    rows: int
    """Database rows of states and of log lines."""
    database_kb: float

    def since(self, before: Costs) -> Costs:
        """Return the difference."""
        return Costs(*(now - then for now, then in zip(self, before, strict=True)))


class Team(NamedTuple):
    """The processes that serve the flow: Prefect's server, and a Dask scheduler."""

    folder: Path
    environment: dict[str, str]
    scheduler: str
    server_process: SupervisedProcess
    scheduler_process: SupervisedProcess

    @contextmanager
    def workers(self, count: int) -> Iterator[None]:
        """Run that many workers while the block runs."""
        with ExitStack() as stack:
            for number in range(count):
                more = (
                    "--nthreads",
                    str(GenerationJob.shards_at_once),
                    "--resources",
                    "GPU=1",
                    "--host",
                    LOOPBACK,
                    "--no-dashboard",
                )
                command = (sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler, *more, "--no-nanny")
                log = self.folder / f"worker-{number}.log"
                worker = SupervisedProcess(command, log=log, environment=self.environment)
                stack.callback(worker.end)
            yield

    def costs(self) -> Costs:
        """Return the costs so far."""
        with closing(sqlite3.connect(f"file:{self.folder}/prefect/prefect.db?mode=ro", uri=True)) as database:
            events, rows, pages, size = (
                int(database.execute(sql).fetchone()[0])
                for sql in (
                    "SELECT count(*) FROM events",
                    "SELECT (SELECT count(*) FROM task_run_state) + (SELECT count(*) FROM log)",
                    "PRAGMA page_count",
                    "PRAGMA page_size",
                )
            )
        return Costs(_cpu_s(self.server_process), _cpu_s(self.scheduler_process), events, rows, pages * size / 1000)


class Scaled(NamedTuple):
    """A run on some number of workers."""

    workers: int
    run: FlowRun
    flow_cpu_s: float
    """CPU seconds of the flow's process, including imports."""
    costs: Costs

    @property
    def rate(self) -> float:
        """Rollouts per second, from the first shard's start to the last one's end."""
        return self.run.rollouts / self.run.generating_s

    @property
    def task_runs(self) -> int:
        """Number of task runs of all kinds."""
        return sum(self.run.task_runs.values())


def _cpu_s(process: SupervisedProcess) -> float:
    times = [child.cpu_times() for child in psutil.Process(process.pid).children(recursive=True)]
    return float(sum(child.user + child.system for child in times))


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """Start the processes, and save a block with the scheduler's address."""
    api, dask = PortReservation(None), PortReservation(None)
    home = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment = home | {
        "PREFECT_API_URL": f"http://{LOOPBACK}:{api.port}/api",
        "NO_PROXY": f"{LOOPBACK},localhost",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    served = ("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "error")
    scheduled = ("-m", "distributed.cli.dask_scheduler", "--host", LOOPBACK, "--no-dashboard")
    with ExitStack() as stack:
        processes = []
        for name, command in (
            ("server", (*served, "--port", str(api.port))),
            ("scheduler", (*scheduled, "--port", str(dask.port))),
        ):
            log = folder / f"{name}.log"
            processes.append(SupervisedProcess((sys.executable, *command), log=log, environment=environment))
            stack.callback(processes[-1].end)
        started = Team(folder, environment, f"tcp://{LOOPBACK}:{dask.port}", *processes)
        deadline = time.monotonic() + START_S
        while not healthy(environment["PREFECT_API_URL"]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Prefect's server does not start: {(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        command = [sys.executable, "-c", SAVE_BLOCK, started.scheduler, BLOCK]
        subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
        yield started


def measure(team: Team, count: int, *, rollouts: int, slots: int, latency_s: float, settle_s: float) -> Scaled:
    """Measure one run on `count` workers.

    Args:
        team: Serves the flow.
        count: Number of workers.
        rollouts: Of each worker.
        slots: Concurrent rollouts of each worker.
        latency_s: Of the model server.
        settle_s: Seconds to wait for Prefect's server to write its events.
    """
    flow = DeskFlow(team.folder, ("--cluster_block", BLOCK), team.environment)
    with team.workers(count), scripted_process(Script(latency_s=latency_s)) as server:
        before, processes_before = team.costs(), resource.getrusage(resource.RUSAGE_CHILDREN)
        work = flow.work(server.base_url, requests=rollouts * count, in_flight=slots)
        run = flow.run(work, f"on-{count}")
        processes = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that have ended: the flow's
        cpu_s = processes.ru_utime + processes.ru_stime - processes_before.ru_utime - processes_before.ru_stime
        time.sleep(settle_s)
        return Scaled(count, run, cpu_s, team.costs().since(before))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="how many; the first is the measure")
    parser.add_argument("--rollouts", type=in_whole_problems, default=1920, help="of each worker")
    parser.add_argument("--slots", type=in_whole_problems, default=ROLLOUTS, help="of each worker")
    parser.add_argument("--latency_s", type=float, default=0.5, help="of the server")
    parser.add_argument("--settle_s", type=float, default=5.0, help="Prefect's server writes events a little later")
    options = parser.parse_args()
    where = machine()
    sizes = {"rollouts": options.rollouts, "slots": options.slots, "latency_s": options.latency_s}
    sizes["settle_s"] = options.settle_s
    with scratch_folder() as folder, team(folder) as started:
        runs = [measure(started, count, **sizes) for count in options.workers]
    rate_of_one = runs[0].rate / runs[0].workers
    efficiencies = [run.rate / (run.workers * rate_of_one) for run in runs]
    rows = [
        {
            "workers": f"{run.workers}",
            "rollouts": f"{run.run.rollouts:,}",
            "seconds": f"{run.run.generating_s:.1f}",
            "rollouts/s": f"{run.rate:.1f}",
            "efficiency": f"{efficiency:.3f}",
            "of the slots": f"{run.rate / (run.workers * options.slots / options.latency_s):.3f}",
        }
        for run, efficiency in zip(runs, efficiencies, strict=True)
    ]
    show(f"scaling on {where}: {options.slots} slots a worker, {options.latency_s:g} s a request", rows)
    costs = [
        {
            "workers": f"{run.workers}",
            "task runs": f"{run.task_runs}",
            "flow, CPU s": f"{run.flow_cpu_s:.2f}",
            "Prefect, CPU s": f"{run.costs.server_s:.2f}",
            "scheduler, CPU s": f"{run.costs.scheduler_s:.2f}",
            "events/task run": f"{run.costs.events / run.task_runs:.1f}",
            "states and log lines/task run": f"{run.costs.rows / run.task_runs:.1f}",
            "database kB/task run": f"{run.costs.database_kb / run.task_runs:.1f}",
        }
        for run in runs
    ]
    show("what a run costs its orchestrators", costs)
    targets = Targets()
    for run, efficiency in zip(runs[1:], efficiencies[1:], strict=True):
        targets.at_least(f"efficiency of {run.workers} workers", efficiency, EFFICIENCY)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
