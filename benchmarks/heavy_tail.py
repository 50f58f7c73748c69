"""Measures time over the lower bound with heavy-tailed latencies: no slot may wait for another's straggler.

Latencies are Pareto distributed. No scheduler can finish before max(longest, sum / slots), whatever it knows
beforehand; with these parameters that is sum / slots. The barrier loop, several times slower, makes an eighth of the
rollouts.
"""

from __future__ import annotations

from benchmarks.contender_process import BARRIER, ENGINE, SESSION, run_contender
from benchmarks.contenders.work import in_whole_problems
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.inference.scripted import Script

MOST_OVER_BOUND = 1.05


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=in_whole_problems, default=24576, help="rollouts")
    parser.add_argument("--in_flight", type=in_whole_problems, default=128, help="slots")
    parser.add_argument("--least_s", type=float, default=0.1, help="the shortest latency")
    parser.add_argument("--longest_s", type=float, default=2.0, help="the tail is cut off there")
    parser.add_argument("--tail", type=float, default=1.5, help="the Pareto distribution's exponent")
    options = parser.parse_args()
    script = Script(latency_s=options.least_s, tail=options.tail, longest_s=options.longest_s)
    where = machine()
    rows, over = [], {}
    for contender in (ENGINE, SESSION, BARRIER):
        requests = options.requests
        if contender is BARRIER:
            requests = max(options.in_flight, in_whole_problems(str(options.requests // 8)))
        with scripted_process(script) as server:
            result = run_contender(contender, server.base_url, requests=requests, in_flight=options.in_flight)
            facts = server.facts()
        longest_s, shared_s = facts["latency_max_s"], facts["latency_sum_s"] / options.in_flight
        bound_s = max(longest_s, shared_s)
        over[contender] = result["seconds"] / bound_s
        rows.append({
            "scheduler": contender.name,
            "rollouts": f"{requests:,}",
            "longest s": f"{longest_s:.2f}",
            "sum / slots s": f"{shared_s:.2f}",
            "took s": f"{result['seconds']:.2f}",
            "over bound": f"{over[contender]:.3f}",
        })  # fmt: skip
    tail = f"latencies from {options.least_s:g} s, exponent {options.tail:g}, at most {options.longest_s:g} s"
    show(f"heavy_tail on {where}; {options.in_flight} slots, {tail}", rows)
    targets = Targets()
    targets.at_most("engine over the bound", over[ENGINE], MOST_OVER_BOUND)
    targets.at_most("session over the bound", over[SESSION], MOST_OVER_BOUND)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
