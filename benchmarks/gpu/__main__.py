"""Measures what only a GPU shows: q* over its bounds, draws, waits, training, memory given back, and vLLM.

Needs no network, and no vLLM: what cannot be measured is a line with the reason. Each measurement is a line of JSON in
the file, written at once; a call skips those that the file has, and begins none after --budget_s, so that calls of ten
minutes continue each other. Without a GPU, and with --tiny, everything is rehearsed with tiny models on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.gpu.ledger import REASON, Figures, Ledger, Measurement
from benchmarks.gpu.processes import ended, machine, memory, training
from benchmarks.gpu.sampling import decode, draw, generate, passes, waits
from benchmarks.gpu.serving import pairs, serving
from benchmarks.gpu.subjects import SIZES, Subjects, choose_size
from benchmarks.gpu.summary import bounds, last_lines, tables
from benchmarks.targets import Targets, arguments

Group = Callable[[Subjects], Iterator[Measurement]]
GROUPS: dict[str, Group] = {
    "machine": machine,
    "draw": draw,
    "passes": passes,
    "generate": generate,
    "decode": decode,
    "waits": waits,
    "memory": memory,
    "ended": ended,
    "training": training,
    "serving": serving,
    "pairs": pairs,
}
OF_GENERATE, MOST_WAITS = 0.9, 2


def main() -> None:
    """Measure the groups that are asked for, and print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="groups to measure")
    parser.add_argument("--out", type=Path, default=Path("build/gpu.jsonl"), help="file of the measurements")
    parser.add_argument("--budget_s", type=float, default=480.0, help="seconds after which none begins any more")
    parser.add_argument("--tiny", action="store_true", help="rehearse with tiny models")
    parser.add_argument("--size", choices=["auto", *SIZES], default="auto", help="models; auto: by the GPU's memory")
    parser.add_argument("--table", action="store_true", help="print the tables of the file, and measure nothing")
    options = parser.parse_args()
    if not options.table:
        _measure(options.out, options.only, options.budget_s, Subjects(choose_size(options.size, tiny=options.tiny)))
    for table in tables(options.out):
        print(f"\n{table}")
    _judge([line for line in last_lines(options.out) if REASON not in line]).end(check=options.check)


def _judge(measured: list[Figures]) -> Targets:
    """Return how the targets came out; a rehearsal has none."""
    targets = Targets()
    lines = [line for line in measured if line["settings"]["size"] != "tiny"]
    for size, pair, rows, _, of_generate, *_ in bounds(lines):
        if of_generate:
            targets.at_least(f"q* of two generate, {size}, {pair}, {rows} rows", float(of_generate), OF_GENERATE)
    for line in lines:
        if line["measurement"] == "one step of q*":
            targets.at_most(f"waits of the host in a step, {line['settings']['pair']}", line["waits"], MOST_WAITS)
    return targets


def _measure(out: Path, groups: list[str], budget_s: float, subjects: Subjects) -> None:
    """Make the measurements of some groups.

    Args:
        out: The file of measurements.
        groups: Names of the groups.
        budget_s: Seconds after which no measurement begins any more.
        subjects: The models.
    """
    ledger = Ledger(out, budget_s=budget_s, size=subjects.size.name)
    for group in groups:
        for measurement in GROUPS[group](subjects):
            ledger.take(group, measurement)
    left = f"; {ledger.left} are left for another call with the same --out" if ledger.left else ""
    print(f"{ledger.made} measured, {ledger.present} in {out} before{left}", file=sys.stderr)


if __name__ == "__main__":
    main()
