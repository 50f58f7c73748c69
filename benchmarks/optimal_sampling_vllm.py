"""Measures q* with both models in one vLLM against that vLLM alone with the same number of rows, on a small model.

Alone: as many requests as q* has rows, with the same prompts and adapters, and vLLM's own sampling; its tokens are
halved, since two rows of q* make one answer. The pairs: a base with its adapter, and one model with two prompts. End
tokens are ignored. Contenders alternate in one process, and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.contender_process import LONGEST_S, ROOT, scratch_folder
from benchmarks.machine import machine
from benchmarks.optimal_sampling import MODEL, PROMPT_TOKENS, make_adapter
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.inference.server import ServerConfig
from rollmill.jobs.optimal_sampling.model_spec import PairSpec, resolve_pair
from rollmill.jobs.optimal_sampling.vllm_decoding import engine_arguments

ALONE = "vLLM alone"
METHODS = ("fixed", "entropy", "kl_symmetry")
OF_ALONE = 0.7
VOCABULARY = 40_000
"""Token ids that are drawn from, and of which prompts are made: below those of the smallest models."""


def measure(
    chosen: PairSpec, options: argparse.Namespace, *, vocabulary: int = VOCABULARY
) -> dict[str, dict[str, float]]:
    """Return seconds by batch and name. Raises `RuntimeError` with the end of its output if vLLM fails."""
    arguments, environment = engine_arguments(chosen, None, max(options.batches), "--max-model-len 1024")
    spec: dict[str, Any] = {name: getattr(options, name) for name in ("batches", "tokens", "repeat")}
    spec |= {"arguments": arguments, "adapters": [chosen.theta.adapter, chosen.t.adapter]}
    spec |= {"prompt_tokens": PROMPT_TOKENS, "vocabulary": vocabulary, "methods": METHODS}
    command = [ServerConfig().interpreter(), "-m", "benchmarks.contenders.pair_engine", json.dumps(spec)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"VLLM_LOGGING_LEVEL": "ERROR"}, capture_output=True, text=True,
        timeout=LONGEST_S, check=False,
    )  # fmt: skip
    figures = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not figures:
        raise RuntimeError(f"vLLM ended with code {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, dict[str, float]] = json.loads(figures[-1])
    return result


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of a model; scripts/demo_model makes one")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="answers at a time")
    parser.add_argument("--tokens", type=int, default=16, help="drawn for each prompt")
    parser.add_argument("--repeat", type=int, default=2, help="turns; the best counts")
    options = parser.parse_args()
    if not options.model.is_dir():
        parser.error(f"there is no model in {options.model}: make one with scripts/demo_model, or name another")
    where, model = machine(), str(options.model.resolve())
    with scratch_folder() as folder:
        adapter = str(make_adapter(folder / "adapter", options.model))
        seconds = {
            "base and adapter": measure(resolve_pair(model, adapter_t=adapter), options),
            "two prompts": measure(resolve_pair(model), options),
        }
    targets, rows = Targets(), []
    for pair, by_batch in seconds.items():
        for name in next(iter(by_batch.values())):
            row = {"": f"{pair}: {name}"}
            for batch, took in by_batch.items():
                row[f"batch {batch}: tokens/s"] = f"{int(batch) * options.tokens / took[name]:.1f}"
                row[f"{batch}: of vLLM alone"] = f"{took[ALONE] / took[name]:.2f}"
            rows.append(row)
    show(f"q* in vLLM, {options.model.name} on {where}, {options.tokens} tokens", rows)
    for pair, by_batch in seconds.items():
        for batch, took in by_batch.items():
            for method in METHODS:
                share = took[ALONE] / took[f"q*, {method}"]
                targets.at_least(f"{pair}, batch {batch}, {method} of vLLM alone", share, OF_ALONE)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
