"""Measures the cost of kill -9: repeated requests, and the time to open a journal of a million rows."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from benchmarks.contender_process import LONGEST_S, scratch_folder
from benchmarks.contenders.work import ROLLOUTS, in_whole_problems
from benchmarks.flow_process import desk_flow
from benchmarks.machine import machine, peak_mb
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.files.rows import dump_line
from rollmill.generation.identity import Identity
from rollmill.generation.journal import Journal
from rollmill.generation.ownership import Ownership
from rollmill.inference.scripted import Script
from rollmill.records import Rollout, Verdict

LONGEST_OPENING_S_PER_MILLION = 15.0


class Repeated(NamedTuple):
    """Counts of the requests of a run that was killed and continued."""

    rollouts: int
    journaled: int
    """Rows in the journal when the process was dead."""
    in_flight: int
    """Requests that the server had received by then and whose rollouts were not journaled."""
    twice: int
    """Seeds that were requested more than once."""
    twice_though_journaled: int
    missing: int
    """Rollouts that the finished run lacks."""


def kill_and_continue(options: argparse.Namespace) -> Repeated:
    """Run the flow, kill it with SIGKILL when half is journaled, and run it again."""
    with desk_flow() as flow, scripted_process(Script(latency_s=options.latency_s)) as server:
        work = flow.work(server.base_url, requests=options.requests, in_flight=options.in_flight)
        journal = flow.results / "killed/rollouts/0001.jsonl"
        process = flow.start(work, "killed")
        try:
            deadline = time.monotonic() + LONGEST_S
            while lines(journal) < options.requests // 2 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
        journaled = seeds(journal)
        requested = set(server.facts()["seeds"])
        flow.run(work, "killed")
        counts = server.facts()["seeds"]
        twice = {seed for seed, count in counts.items() if count > 1}
        return Repeated(
            rollouts=options.requests,
            journaled=len(journaled),
            in_flight=len(requested - journaled),
            twice=len(twice),
            twice_though_journaled=len(twice & journaled),
            missing=options.requests - len(seeds(journal)),
        )


def lines(path: Path) -> int:
    """Count the lines of a file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def seeds(journal: Path) -> set[str]:
    """Return the seeds of the complete rows of a journal."""
    rows = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    return {str(orjson.loads(row)["seed"]) for row in rows}


def write_journal(path: Path, rows: int, row_bytes: int) -> None:
    """Write a journal with rows as the engine writes them."""
    verdict = Verdict(verifier="numeric@1", status="ok", answer="3", distance=0.0, reward=1.0, success=True)
    owner = journal_owner()
    with path.open("wb", buffering=1 << 20) as file:
        for number in range(rows):
            index, sample_id = divmod(number, ROLLOUTS)
            rollout = {
                "schema_version": 1, "instance_id": f"p{index}", "sample_id": sample_id, "seed": number,
                "messages": [{"role": "user", "content": "What is the last digit? " * 8}], "completion": "",
                "reward": 1.0, "success": True, "verdict": verdict.model_dump(), "error": None,
                "usage": {"prompt_tokens": 64, "completion_tokens": 400}, "latency_s": 0.5, "finish_reason": "stop",
                "model_calls": 1, "metadata": {"model": "scripted", "attempt": 0, "max_tokens": 2048},
            }  # fmt: skip
            short = row_bytes - len(owner.stamp(dump_line(rollout)))
            rollout["completion"] = 'It is "3",\n' * (short // 14) + "." * (short % 14)
            file.write(owner.stamp(dump_line(rollout)))
            if number == 0:
                Rollout.model_validate(rollout)


def journal_owner() -> Ownership:
    """Return the identity that stamps the journal's rows."""
    sampling = {"temperature": 1.0, "max_tokens": 2048}
    return Ownership(Identity(generation={"sampling": sampling}, verification={}), has_manifest=True)


def open_journal(path: Path) -> dict[str, Any]:
    """Open a journal; return seconds, number of rows, and peak memory before and after."""
    before = peak_mb()
    started = time.perf_counter()
    with Journal(path, journal_owner()) as journal:
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "rows": journal.tally.done, "before_mb": before, "peak_mb": peak_mb()}


def measure_opening(rows: int, row_bytes: int) -> dict[str, Any]:
    """Open a journal of that many rows in a new process. Raises `RuntimeError` if the disk has no room for it."""
    with scratch_folder() as folder:
        needed, free = rows * row_bytes, shutil.disk_usage(folder).free
        if free < 1.5 * needed:
            raise RuntimeError(f"{needed / 1e9:.1f} GB are needed for {rows:,} rows, {free / 1e9:.1f} GB are free")
        path = folder / "0001.jsonl"
        write_journal(path, rows, row_bytes)
        size = path.stat().st_size
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            opened = process.submit(open_journal, path).result()
    if opened["rows"] != rows:
        raise RuntimeError(f"{opened['rows']:,} rows were read where {rows:,} are")
    return opened | {"mb": size / 1e6}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=in_whole_problems, default=4096, help="rollouts of the killed run")
    parser.add_argument("--in_flight", type=in_whole_problems, default=128, help="slots")
    parser.add_argument("--latency_s", type=float, default=0.5, help="the server's")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the journal to open")
    parser.add_argument("--row_bytes", type=int, default=2000, help="bytes of each")
    options = parser.parse_args()
    where = machine()
    killed = kill_and_continue(options)
    names = {
        "rollouts": "rollouts",
        "journaled": "journaled at the kill",
        "in_flight": "in flight then",
        "twice": "asked twice",
        "twice_though_journaled": "of those journaled",
        "missing": "missing at the end",
    }
    show(
        f"resume after kill -9 on {where}",
        [{title: f"{getattr(killed, name):,}" for name, title in names.items()}],
    )
    opened = measure_opening(options.rows, options.row_bytes)
    show(
        "opening a journal",
        [
            {
                "rows": f"{opened['rows']:,}",
                "MB": f"{opened['mb']:,.0f}",
                "s": f"{opened['seconds']:.2f}",
                "rows/s": f"{opened['rows'] / opened['seconds']:,.0f}",
                "memory before MB": f"{opened['before_mb']:.0f}",
                "peak MB": f"{opened['peak_mb']:.0f}",
            }
        ],
    )
    targets = Targets()
    targets.at_most("requests repeated, of those in flight", killed.twice, killed.in_flight)
    targets.at_most("requests repeated though journaled", killed.twice_though_journaled, 0)
    targets.at_most("rollouts missing at the end", killed.missing, 0)
    per_million = opened["seconds"] * 1e6 / opened["rows"]
    targets.at_most("seconds to open a million rows", per_million, LONGEST_OPENING_S_PER_MILLION)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
