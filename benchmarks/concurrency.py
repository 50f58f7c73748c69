"""Measures completions per second with `--concurrency auto` against fixed numbers of concurrent rollouts.

The server handles a hidden number of requests at a time; beyond it each takes longer, so that the rate stays (mild) or
falls (hard). For auto the whole run counts, including its search.
"""

from __future__ import annotations

from benchmarks.contenders.work import in_whole_problems
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.session_run import SessionRun, run_session
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.generation.concurrency import AUTO, Concurrency
from rollmill.inference.scripted import Script

AUTO_OF_BEST = 0.9
THRASH = {"mild": 1.0, "hard": 2.0}
CYCLES = 20
"""Rollouts of a fixed number, for each slot, at least."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--limit", type=int, default=80, help="requests that the server does at a time")
    parser.add_argument("--latency_s", type=float, default=0.25, help="of a request within the limit")
    parser.add_argument("--requests", type=in_whole_problems, default=16384, help="rollouts of auto")
    parser.add_argument("--fixed", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="numbers to compare with")
    options = parser.parse_args()
    targets = Targets()
    for name, thrash in THRASH.items():
        script = Script(latency_s=options.latency_s, limit=options.limit, thrash=thrash)
        runs: dict[Concurrency, SessionRun] = {}
        for slots in (*options.fixed, AUTO):
            requests = options.requests if slots == AUTO else in_whole_problems(str(CYCLES * slots))
            with scripted_process(script) as server:
                runs[slots] = run_session(server.base_url, requests=requests, slots=slots)
        best = max(run.rate for slots, run in runs.items() if slots != AUTO)
        show(
            f"concurrency on {machine()}; {options.limit} at a time, {options.latency_s:g} s, {name} beyond",
            [
                {"at a time": str(slots), "per s": f"{run.rate:,.1f}", "of the best fixed": f"{run.rate / best:.3f}",
                 "found": "-" if run.slots is None else f"{run.slots}"}
                for slots, run in runs.items()
            ],
        )  # fmt: skip
        targets.at_least(f"auto of the best fixed number, {name}", runs[AUTO].rate / best, AUTO_OF_BEST)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
