"""Measures time and peak memory of filtering trajectories by reward and success, writing messages and metadata.

Every contender reads the same file from the page cache in a separate process; imports do not count. Output goes to
memory (/dev/shm) if there is room, since the disk is not to be measured.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks.contender_process import ROOT, environment, scratch_folder
from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from benchmarks.trajectories import ROWS_PER_GB, write_trajectories
from rollmill.corpus.corpus import index_run
from rollmill.files.names import MANIFEST
from rollmill.generation.identity import Identity
from rollmill.generation.manifest import Manifest
from rollmill.generation.run import PROBLEMS

LOOP = "orjson_loop"
FROM_FILE = {
    "rollmill export_sft": "rollmill_export",
    "rollmill filter_data": "rollmill_filter",
    "rollmill analyze": "rollmill_analyze",
}
FROM_RUN = {
    "rollmill export_sft, from a run": "rollmill_export",
    "rollmill filter_data, from a run": "rollmill_filter",
    "rollmill filter_data, places of the dropped, from a run": "rollmill_filter_places",
    "rollmill analyze, from a run": "rollmill_analyze",
}
OTHERS = {"json loop": "json_loop", "polars scan to sink": "polars_stream", "datasets": "datasets_filter"}
MOST_OF_LOOP, MOST_OF_LOOP_FROM_RUN, LEAST_BEFORE_DATASETS, MOST_MB = 1.3, 0.2, 5.0, 1000.0


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS_PER_GB, help="trajectories of about 45 kB")
    parser.add_argument("--repeat", type=int, default=3, help="times that each is run; the best counts")
    parser.add_argument("--no_others", action="store_true", help="only the loop and rollmill")
    options = parser.parse_args()
    where = machine()
    with scratch_folder() as folder, output_folder(options.rows) as target:
        source = folder / "rollouts.jsonl"
        write_trajectories(source, options.rows)
        run = make_run(folder / "run", source)
        jobs = {"orjson loop": (LOOP, source)}
        jobs |= {} if options.no_others else {name: (via, source) for name, via in OTHERS.items()}
        jobs |= {name: (via, source) for name, via in FROM_FILE.items()}
        jobs |= {name: (via, run) for name, via in FROM_RUN.items()}
        figures = {name: [] for name in jobs}
        for _ in range(options.repeat):
            for name, (via, read) in jobs.items():
                figures[name].append(measure(via, read, target, folder))
        gigabytes = source.stat().st_size / 1e9
    best = {
        name: min(repetitions, key=lambda repetition: repetition["seconds"]) for name, repetitions in figures.items()
    }
    report(best, f"curation on {where}: {options.rows:,} trajectories, {gigabytes:.2f} GB", options.check)


def report(best: dict[str, dict[str, Any]], title: str, check: bool) -> None:
    """Print the table and the targets."""
    loop = best["orjson loop"]["seconds"]
    rows = [
        {
            "": name,
            "seconds": f"{figure['seconds']:.2f}",
            "of the loop": f"{figure['seconds'] / loop:.2f}",
            "peak MB": f"{figure['peak_mb']:,.0f}",
        }
        for name, figure in best.items()
    ]
    show(title, rows)
    targets = Targets()
    for name in FROM_FILE:
        targets.at_most(f"{name} over the orjson loop", best[name]["seconds"] / loop, MOST_OF_LOOP)
    for name in list(FROM_RUN)[2:]:
        targets.at_most(f"{name}, over the orjson loop", best[name]["seconds"] / loop, MOST_OF_LOOP_FROM_RUN)
    for name in FROM_FILE | FROM_RUN:
        targets.at_most(f"peak MB of {name}", best[name]["peak_mb"], MOST_MB)
    if "datasets" in best:
        ratio = best["datasets"]["seconds"] / best["rollmill export_sft"]["seconds"]
        targets.at_least("datasets over rollmill export_sft", ratio, LEAST_BEFORE_DATASETS)
    targets.end(check=check)


def measure(via: str, source: Path, target: Path, home: Path) -> dict[str, Any]:
    """Return seconds and peak memory of one contender. Raises `RuntimeError` with the end of its output if it fails.

    Args:
        via: The contender's name.
        source: File or run that it reads.
        target: Folder for its output; emptied first.
        home: Folder for caches.
    """
    for entry in target.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    command = [sys.executable, "-m", "benchmarks.contenders.curation", via, str(source), str(target / "out.jsonl")]
    done = subprocess.run(command, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{via} ended with code {done.returncode}: {done.stderr[-2000:]}")
    return dict(orjson.loads(done.stdout.splitlines()[-1]))


def make_run(directory: Path, journal: Path) -> Path:
    """Make a run directory with that file as its journal, indexed as at the end of a run."""
    (directory / "rollouts").mkdir(parents=True)
    (directory / "rollouts/0001.jsonl").hardlink_to(journal)
    with (directory / PROBLEMS).open("wb") as problems, journal.open("rb", buffering=1 << 20) as rows:
        seen = dict.fromkeys(orjson.loads(line)["instance_id"] for line in rows)
        problems.writelines(
            orjson.dumps({"instance_id": instance_id, "prompt": instance_id}) + b"\n" for instance_id in seen
        )
    identity = Identity(generation={"sampling": {"max_tokens": 4096}}, verification={})
    manifest = Manifest(
        job="benchmark", identity_key=identity.key, identity=identity, parameters={}, seed=0,
        journal="rollouts/0001.jsonl", problems={}, versions={}, git_commit=None, host="", started_at="",
    )  # fmt: skip
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    index_run(directory, 1 << 16)
    return directory


@contextmanager
def output_folder(rows: int) -> Iterator[Path]:
    """Yield a folder in memory where twice the rows would fit, else on the disk."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2.5 * rows / ROWS_PER_GB * 1e9
    folder = Path(tempfile.mkdtemp(prefix="rollmill-benchmark-", dir=memory if roomy else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
