"""Runs the flow as a user starts it, with a separate Prefect home."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.contender_process import LONGEST_S, ROOT, scratch_folder
from benchmarks.contenders.work import MAX_TOKENS, MODEL, ROLLOUTS, Work
from benchmarks.scripted_process import scripted_process
from rollmill.inference.scripted import Script


class FlowRun(NamedTuple):
    """One finished run of the flow."""

    rollouts: int
    wall_s: float
    """Seconds of the whole command: imports, Prefect's server, loading, generating, results."""
    generating_s: float
    """From the start of the first shard's task to the end of the last one's."""
    longest_pause_s: float
    """The longest time between two shards' ends."""
    task_runs: dict[str, int]
    """Number of task runs by the task's name."""


class DeskFlow:
    """Starts `python -m flows.reject_sampling` in a Prefect home whose database exists already."""

    def __init__(self, folder: Path, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._flags = flags
        self._environment = environment or {}
        self._database = folder / "prefect/prefect.db"

    def command(self, work: Work, name: str) -> list[str]:
        """Return the command line. `name` is also the run's folder."""
        options = ["--model_path", MODEL, "--model_name", name, "--dataset", str(work.write_problems()), "--no_canary"]
        options += ["--base_url", work.base_url, "--num_rollout", str(ROLLOUTS), "--max_tokens", str(MAX_TOKENS)]
        options += ["--concurrency", str(max(1, work.in_flight // ROLLOUTS)), "--output_dir", str(self.results)]
        return [sys.executable, "-m", "flows.reject_sampling", *options, *self._flags]

    @property
    def results(self) -> Path:
        """Folder of the runs."""
        return self._folder / "results"

    def work(self, base_url: str, *, requests: int, in_flight: int) -> Work:
        """Return work with its problems in this flow's folder."""
        return Work(base_url, requests, in_flight, self._folder)

    def start(self, work: Work, name: str) -> subprocess.Popen[bytes]:
        """Start the command; its output goes to `<name>.log`."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        environment |= {"PREFECT_HOME": str(self._folder / "prefect"), "NO_PROXY": "127.0.0.1,localhost"}
        environment |= self._environment
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                self.command(work, name),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, work: Work, name: str) -> FlowRun:
        """Start the command and wait. Raises `RuntimeError` with the end of its log if it fails."""
        before = self._flow_runs()
        started = time.perf_counter()
        process = self.start(work, name)
        try:
            code = process.wait(LONGEST_S)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        wall_s = time.perf_counter() - started
        if code:
            output = (self._folder / f"{name}.log").read_text(errors="replace")
            raise RuntimeError(f"the flow ended with code {code}: {output[-2000:]}")
        [flow_run] = self._flow_runs() - before
        moments = self._moments(flow_run)
        pause_s = max(after - before for before, after in pairwise(moments))
        return FlowRun(work.requests, wall_s, moments[-1] - moments[0], pause_s, self._task_runs(flow_run))

    def _query(self, sql: str, *values: str) -> list[tuple[str, ...]]:
        if not self._database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as database:
            return database.execute(sql, values).fetchall()

    def _flow_runs(self) -> set[str]:
        return {row[0] for row in self._query("SELECT id FROM flow_run")}

    def _moments(self, flow_run: str) -> list[float]:
        """Return when the first shard started and when each ended, in seconds since 1970."""
        sql = "SELECT min(start_time) FROM task_run WHERE flow_run_id = ?1 AND name LIKE 'rollouts%' UNION ALL "
        sql += "SELECT end_time FROM task_run WHERE flow_run_id = ?1 AND name LIKE 'rollouts%'"
        return sorted(datetime.fromisoformat(moment).timestamp() for (moment,) in self._query(sql, flow_run))

    def _task_runs(self, flow_run: str) -> dict[str, int]:
        sql = "SELECT CASE WHEN name LIKE 'rollouts%' THEN 'rollouts' ELSE name END AS kind, count(*)"
        rows = self._query(f"{sql} FROM task_run WHERE flow_run_id = ? GROUP BY kind", flow_run)
        return {kind: int(count) for kind, count in rows}


@contextmanager
def desk_flow() -> Iterator[DeskFlow]:
    """Yield a `DeskFlow` after a first small run."""
    with scratch_folder() as folder:
        flow = DeskFlow(folder)
        with scripted_process(Script()) as server:
            flow.run(flow.work(server.base_url, requests=ROLLOUTS, in_flight=ROLLOUTS), "warm")
        yield flow
