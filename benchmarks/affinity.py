"""Measures prefix affinity: the share of a problem's rollouts on its main server, and the rate, with and without.

Several servers have heavy-tailed latencies. Each serves its part of the slots at a time and slows down beyond it, so
that an unbalanced load would lower the rate. Both ways alternate; medians are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from statistics import median

from benchmarks.contenders.work import in_whole_problems
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.session_run import run_session
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.inference.endpoints import Endpoint, EndpointPool, RoutedConversation, WorkT
from rollmill.inference.scripted import Script

ON_MAIN_SERVER = 0.9
RATE_OF_WITHOUT = 0.98


class LeastLoaded(EndpointPool):
    """Every request goes to whichever endpoint has the least load, in the order of the problems."""

    def in_turns(self, groups: Iterable[tuple[str, Iterator[WorkT]]]) -> Iterator[WorkT]:
        """Yield the work group by group."""
        return chain.from_iterable(work for _, work in groups)

    def _choose(self, conversation: RoutedConversation | None) -> Endpoint | None:
        return self.pick()


def measure(
    kind: type[EndpointPool], script: Script, *, servers: int, requests: int, slots: int
) -> tuple[float, float]:
    """Return the rate, and the share of requests on the main servers of their problems.

    Args:
        kind: How requests are spread.
        script: Behaviour of each server.
        servers: Number of servers.
        requests: Number of rollouts, in whole problems.
        slots: Concurrent requests, of all servers together.
    """
    with ExitStack() as stack:
        running = [stack.enter_context(scripted_process(script)) for _ in range(servers)]
        pool = kind([Endpoint(server.base_url) for server in running])
        rate = run_session(running[0].base_url, requests=requests, slots=slots, pool=pool).rate
        counts = [server.facts()["prompts"] for server in running]
    prompts = {prompt for each in counts for prompt in each}
    return rate, sum(max(each.get(prompt, 0) for each in counts) for prompt in prompts) / requests


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--slots", type=int, default=128, help="requests at a time, of all servers together")
    parser.add_argument("--requests", type=in_whole_problems, default=8192, help="rollouts")
    parser.add_argument("--latency_s", type=float, default=0.2, help="the shortest latency")
    parser.add_argument("--tail", type=float, default=2.5, help="the Pareto distribution's exponent")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    script = Script(
        latency_s=options.latency_s, tail=options.tail, longest_s=10 * options.latency_s,
        limit=options.slots // options.servers, thrash=1.0,
    )  # fmt: skip
    size = {"servers": options.servers, "requests": options.requests, "slots": options.slots}
    kinds = {"least load": LeastLoaded, "affinity": EndpointPool}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(options.repeat):
        for name, kind in kinds.items():
            results[name].append(measure(kind, script, **size))
    rates = {name: median(rate for rate, _ in runs) for name, runs in results.items()}
    shares = {name: median(share for _, share in runs) for name, runs in results.items()}
    without = rates["least load"]
    show(
        f"affinity on {machine()}; {options.servers} servers, {options.slots} at a time",
        [
            {"requests go by": name, "per s": f"{rates[name]:,.1f}", "of least load": f"{rates[name] / without:.3f}",
             "on a problem's main server": f"{shares[name]:.3f}"}
            for name in kinds
        ],
    )  # fmt: skip
    targets = Targets()
    targets.at_least("requests on their problem's main server", shares["affinity"], ON_MAIN_SERVER)
    targets.at_least("rate with affinity of the rate without", rates["affinity"] / without, RATE_OF_WITHOUT)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
