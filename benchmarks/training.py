"""Measures LoRA training: tokens/s and peak memory of the worker against a bare TRL script with the same settings.

Each trains one epoch on the same rows in a separate process, several times in turn; the best counts. Loading and
tokenizing are not timed, a checkpoint at the end is. Peak memory is the GPU's, or without one the process's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from benchmarks.contender_process import ROOT, environment, scratch_folder
from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments

CONTENDERS = {"bare TRL": "bare_trl", "rollmill": "rollmill_worker"}
LEAST_OF_BARE, MOST_OF_MEMORY = 0.97, 1.05
MODEL = ROOT / "models/SmolLM2-135M-Instruct"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of a model; scripts/demo_model makes one")
    parser.add_argument("--rows", type=int, default=32, help="conversations of about 60 tokens")
    parser.add_argument("--repeat", type=int, default=3, help="times that each is run; the best counts")
    options = parser.parse_args()
    if not options.model.is_dir():
        parser.error(f"there is no model in {options.model}: make one with scripts/demo_model, or name another")
    where = machine()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repeat):
        for name, contender in CONTENDERS.items():
            runs[name].append(measure(contender, options.model.resolve(), options.rows))
    best = {name: min(figures, key=lambda run: run["seconds"]) for name, figures in runs.items()}
    report(best, f"training {options.model.name} on {where}: {options.rows} rows", check=options.check)


def report(best: dict[str, dict[str, Any]], title: str, *, check: bool) -> None:
    """Print the table and how the targets came out."""
    speed = {name: figure["tokens"] / figure["seconds"] for name, figure in best.items()}
    rows = [
        {
            "": name,
            "tokens": f"{figure['tokens']:,}",
            "seconds": f"{figure['seconds']:.1f}",
            "tokens/s": f"{speed[name]:,.1f}",
            "peak MB": f"{figure['peak_mb']:,.0f}",
        }
        for name, figure in best.items()
    ]
    show(title, rows)
    bare, ours = CONTENDERS
    targets = Targets()
    targets.at_least("tokens/s over the bare script's", speed[ours] / speed[bare], LEAST_OF_BARE)
    targets.at_most("peak memory over the bare script's", best[ours]["peak_mb"] / best[bare]["peak_mb"], MOST_OF_MEMORY)
    targets.end(check=check)


def measure(contender: str, model: Path, rows: int) -> dict[str, Any]:
    """Return seconds, tokens and peak memory of one contender.

    Raises `RuntimeError` with the end of its output if it fails.
    """
    with scratch_folder() as folder:
        data = folder / "rows.jsonl"
        data.write_bytes(b"".join(map(_row, range(rows))))
        command = [sys.executable, "-m", "benchmarks.contenders.training", contender]
        done = subprocess.run(
            [*command, str(model), str(data), str(folder)],
            cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{contender} ended with code {done.returncode}: {done.stderr[-2000:]}")
    return dict(orjson.loads(done.stdout.splitlines()[-1]))


def _row(number: int) -> bytes:
    """Return a sum with its steps, of varying length."""
    terms = [number * step % 89 + 1 for step in range(1, 4 + number % 4)]
    question = f"What is {' + '.join(map(str, terms))}?"
    steps = [f"{sum(terms[:end])} + {terms[end]} = {sum(terms[: end + 1])}" for end in range(1, len(terms))]
    answer = f"{', '.join(steps)}. <answer>{sum(terms)}</answer>"
    prompt, completion = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    return orjson.dumps({"prompt": [prompt], "completion": [completion]}) + b"\n"


if __name__ == "__main__":
    main()
