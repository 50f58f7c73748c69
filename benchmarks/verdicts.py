"""Measures verdicts per second in sandboxes against the same verifiers in plain processes.

Both alternate, and the fastest round of each counts. The scorer of `n_queens` evaluates answers as Python, so each is
judged in a forked process; the others are judged in the worker process itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.problems import gym
from rollmill.records import Problem
from rollmill.verifiers import VerifierPool
from rollmill.verifiers.process_sandbox import sandbox_missing

LEAST_OF_PLAIN = 0.8
PLAIN = "benchmarks.contenders.plain_verifiers"


class Work(NamedTuple):
    """A verifier, with a problem and answers to judge."""

    name: str
    verifier: str
    plain: str
    problem: Problem
    answer: str
    forked: bool = False


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--verdicts", type=int, default=1500, help="in one round; a tenth of them in forks")
    parser.add_argument("--rounds", type=int, default=5, help="of each")
    parser.add_argument("--workers", type=int, default=2, help="processes of each")
    options = parser.parse_args()
    if missing := sandbox_missing():
        parser.error(f"there is no sandbox to measure: {missing}")
    where = machine()
    rows, ratios = [], {}
    for work in everything():
        count = max(options.verdicts // 10, 1) if work.forked else options.verdicts
        sandboxed, plain = asyncio.run(measure(work, count, options.rounds, options.workers))
        ratios[work.name] = sandboxed / plain
        rows.append({
            "verdicts": work.name,
            "sandboxed/s": f"{sandboxed:,.0f}",
            "plain/s": f"{plain:,.0f}",
            "of plain": f"{ratios[work.name]:.2f}",
        })  # fmt: skip
    show(f"verdicts on {where}; {options.workers} processes", rows)
    targets = Targets()
    for work in everything():
        if not work.forked:
            targets.at_least(f"{work.name}, of plain", ratios[work.name], LEAST_OF_PLAIN)
    targets.end(check=options.check)


def everything() -> Iterator[Work]:
    problem = Problem(instance_id="p", prompt="?", answer=r"\frac{\sqrt{2}}{2}")
    yield Work("math", "math", f"{PLAIN}:PlainMath", problem, r"\sqrt{{{}}}/7")  # not a number: sympy compares
    for name, answer, forked in (("leg_counting", "{}", False), ("n_queens", "[['_', 'Q']] * ({} + 2)", True)):
        origin = {"name": name, "config": {"seed": 7, "size": 20}, "index": 1}
        entry = gym.make_entry(gym.create_dataset(name, {"seed": 7, "size": 20}), 1)
        problem = Problem(instance_id="p", prompt=entry["question"], fields={"reasoning_gym": origin})
        shown = f"reasoning_gym {name}" + (", in forks" if forked else "")
        yield Work(shown, "reasoning_gym", f"{PLAIN}:PlainReasoningGym", problem, answer, forked)


async def measure(work: Work, count: int, rounds: int, workers: int) -> tuple[float, float]:
    """Return verdicts per second, sandboxed and plain.

    Args:
        work: To judge.
        count: Verdicts of a round.
        rounds: The fastest one counts.
        workers: Processes of each pool.
    """
    best = [0.0, 0.0]
    async with (
        VerifierPool(work.verifier, accept_error=0.0, workers=workers) as sandboxed,
        VerifierPool(work.plain, accept_error=0.0, workers=workers) as plain,
    ):
        for _ in range(rounds):
            for number, pool in enumerate((sandboxed, plain)):
                await judge(pool, work, 2 * workers)  # the first round starts the processes
                begun = time.perf_counter()
                await judge(pool, work, count)
                best[number] = max(best[number], count / (time.perf_counter() - begun))
    return best[0], best[1]


async def judge(pool: VerifierPool, work: Work, count: int) -> None:
    completions = (f"<answer>{work.answer.format(number)}</answer>" for number in range(count))
    await asyncio.gather(*(pool.verify(work.problem, completion) for completion in completions))


if __name__ == "__main__":
    main()
