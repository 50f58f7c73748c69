"""Measures completions per second of the engine, the flow and other libraries against a bare aiohttp loop.

Every contender makes the same requests with the same number in flight, in a separate process, against a scripted server
in another; start-up of the interpreter does not count. Repetitions alternate, and medians are shown. The flow is
compared with the engine in runs of --minutes each, which take most of the time.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from statistics import median

from benchmarks.contender_process import (
    BARE,
    BARE_WITH_TOKENS,
    ENGINE,
    ENGINE_WITH_TOKENS,
    OTHERS,
    SESSION,
    Contender,
    run_contender,
)
from benchmarks.contenders.work import in_whole_problems
from benchmarks.flow_process import DeskFlow, FlowRun, desk_flow
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.inference.scripted import Script

ENGINE_OF_BARE = 0.95
ENGINE_AT_ONCE = 1200
FLOW_OF_ENGINE = 0.95
LATENCIES_S = (0.5, 0.0)


class Rates:
    """Completions per second by contender and latency, and the server's CPU use."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, float], list[float]] = defaultdict(list)
        self._busy: dict[tuple[str, float], list[float]] = defaultdict(list)

    def measure(self, contender: Contender, latency_s: float, *, requests: int, in_flight: int) -> None:
        """Measure one repetition.

        Args:
            contender: The program.
            latency_s: Of the server.
            requests: Number of requests.
            in_flight: Concurrent requests.
        """
        with scripted_process(Script(latency_s=latency_s)) as server:
            result = run_contender(contender, server.base_url, requests=requests, in_flight=in_flight)
            self._busy[contender.name, latency_s].append(server.cpu_s / result["seconds"])
        self._rates[contender.name, latency_s].append(result["requests"] / result["seconds"])

    def rate(self, contender: Contender, latency_s: float) -> float:
        """Return the median of the repetitions."""
        return median(self._rates[contender.name, latency_s])

    def of_bare(self, contender: Contender, latency_s: float) -> float:
        """Return the rate as a share of bare aiohttp's with the same requests."""
        bare = BARE_WITH_TOKENS if contender in (BARE_WITH_TOKENS, ENGINE_WITH_TOKENS) else BARE
        return self.rate(contender, latency_s) / self.rate(bare, latency_s)

    def row(self, contender: Contender) -> dict[str, str]:
        """Return the contender's line of the table."""
        cells = {"contender": contender.name}
        for latency_s in LATENCIES_S:
            if self._rates[contender.name, latency_s]:
                cells[f"{latency_s:g} s: per s"] = f"{self.rate(contender, latency_s):,.0f}"
                cells[f"{latency_s:g} s: of bare"] = f"{self.of_bare(contender, latency_s):.3f}"
                cells[f"{latency_s:g} s: server busy"] = f"{median(self._busy[contender.name, latency_s]):.0%}"
            else:
                cells[f"{latency_s:g} s: per s"] = "not installed"
        return cells


def compare(options: argparse.Namespace) -> Rates:
    """Measure in turns (bare, engine, ..., bare, engine, ...), then the other libraries."""
    rates = Rates()
    size = {"requests": options.requests, "in_flight": options.in_flight}
    contenders = [BARE, ENGINE, SESSION, BARE_WITH_TOKENS, ENGINE_WITH_TOKENS]
    others = [] if options.no_others else list(OTHERS)
    for latency_s in LATENCIES_S:
        for _ in range(options.repeat):
            for contender in contenders:
                rates.measure(contender, latency_s, **size)
        for contender in others:
            if contender.installed:
                rates.measure(contender, latency_s, **size)
    show(
        f"{options.requests:,} requests, {options.in_flight} in flight, by the server's latency",
        [rates.row(contender) for contender in (*contenders, *others)],
    )
    return rates


class Pair:
    """The rates of flow and engine on the same long work."""

    def __init__(self, latency_s: float, requests: int) -> None:
        self.latency_s = latency_s
        self.requests = requests
        self.engine: list[float] = []
        self.flow: list[FlowRun] = []

    def measure(self, flow: DeskFlow, in_flight: int) -> None:
        """Measure one repetition of each."""
        script = Script(latency_s=self.latency_s)
        with scripted_process(script) as server:
            result = run_contender(ENGINE, server.base_url, requests=self.requests, in_flight=in_flight)
            self.engine.append(result["requests"] / result["seconds"])
        with scripted_process(script) as server:
            work = flow.work(server.base_url, requests=self.requests, in_flight=in_flight)
            self.flow.append(flow.run(work, f"flow-{self.latency_s:g}s-{len(self.flow)}"))

    @property
    def flow_of_engine(self) -> float:
        """The flow's rate while it generates as a share of the engine's."""
        return median(run.rollouts / run.generating_s for run in self.flow) / median(self.engine)

    def rows(self) -> list[dict[str, str]]:
        """Return the engine's line and the flow's."""
        engine = median(self.engine)
        wall_s = median(run.wall_s for run in self.flow)
        generating_s = median(run.generating_s for run in self.flow)
        about = {"latency": f"{self.latency_s:g} s", "rollouts": f"{self.requests:,}"}
        first = {"what": "engine", **about, "generating s": f"{self.requests / engine:.1f}", "per s": f"{engine:,.0f}"}
        second = {
            "what": "flow",
            **about,
            "generating s": f"{generating_s:.1f}",
            "per s": f"{self.requests / generating_s:,.0f}",
            "of engine": f"{self.flow_of_engine:.3f}",
            "longest pause s": f"{max(run.longest_pause_s for run in self.flow):.1f}",
            "wall s": f"{wall_s:.1f}",
            "per s of wall": f"{self.requests / wall_s:,.0f}",
            "wall, of engine": f"{self.requests / wall_s / engine:.3f}",
        }
        return [first, second]


def compare_flow(options: argparse.Namespace, rates: Rates) -> list[Pair]:
    """Measure in turns (engine, flow, engine, flow, ...) on work that takes the engine about --minutes."""
    pairs = []
    for latency_s in LATENCIES_S:
        per_s = options.in_flight / latency_s if latency_s else rates.rate(ENGINE, latency_s)
        pairs.append(Pair(latency_s, in_whole_problems(str(round(per_s * 60 * options.minutes)))))
    with desk_flow() as flow:
        for pair in pairs:
            for _ in range(options.flow_repeat):
                pair.measure(flow, options.in_flight)
    show("the flow as a user starts it", [row for pair in pairs for row in pair.rows()])
    return pairs


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=in_whole_problems, default=1024, help="requests of the short runs")
    parser.add_argument("--in_flight", type=in_whole_problems, default=128, help="requests in flight")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of the short runs")
    parser.add_argument("--minutes", type=float, default=1.1, help="length of the flow's runs; 0 leaves them out")
    parser.add_argument("--flow_repeat", type=int, default=1, help="repetitions of the flow's runs")
    parser.add_argument("--no_others", action="store_true", help="leave out the other libraries")
    options = parser.parse_args()
    print(f"rollout_overhead on {machine()}")
    rates = compare(options)
    targets = Targets()
    targets.at_least("engine of bare aiohttp at 0.5 s", rates.of_bare(ENGINE, 0.5), ENGINE_OF_BARE)
    with_tokens = rates.of_bare(ENGINE_WITH_TOKENS, 0.5)
    targets.at_least("engine of bare aiohttp at 0.5 s, both with tokens", with_tokens, ENGINE_OF_BARE)
    targets.at_least("engine's completions/s at 0 s", rates.rate(ENGINE, 0.0), ENGINE_AT_ONCE)
    for pair in compare_flow(options, rates) if options.minutes else ():
        targets.at_least(f"flow of engine at {pair.latency_s:g} s", pair.flow_of_engine, FLOW_OF_ENGINE)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
