"""Measures peak memory of a whole run (engine, journal, results) and its growth with the number of rollouts."""

from __future__ import annotations

from benchmarks.contender_process import ENGINE, run_contender
from benchmarks.contenders.work import in_whole_problems
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.inference.scripted import Script

MOST_GROWTH_MB = 200


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--few", type=in_whole_problems, default=1008, help="rollouts of the small run")
    parser.add_argument("--many", type=in_whole_problems, default=100_000, help="rollouts of the large run")
    parser.add_argument("--in_flight", type=in_whole_problems, default=128, help="slots")
    parser.add_argument("--completion_bytes", type=int, default=2000, help="bytes of every completion")
    options = parser.parse_args()
    where = machine()
    rows, peaks = [], []
    for requests in (options.few, options.many):
        with scripted_process(Script(completion_bytes=options.completion_bytes)) as server:
            result = run_contender(
                ENGINE, server.base_url, requests=requests, in_flight=options.in_flight, flags=("--results",)
            )
        peaks.append(result["peak_mb"])
        rate = f"{requests / result['seconds']:,.0f}"
        rows.append({"rollouts": f"{requests:,}", "peak MB": f"{result['peak_mb']:.0f}", "rollouts/s": rate})
    rows[1]["growth MB"] = f"{peaks[1] - peaks[0]:.0f}"
    show(f"memory on {where}, completions of {options.completion_bytes:,} bytes", rows)
    targets = Targets()
    targets.at_most("growth of peak memory in MB", peaks[1] - peaks[0], MOST_GROWTH_MB)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
