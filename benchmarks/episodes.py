"""Measures episodes per second by the number in flight, with a scripted model of fixed latency.

No agent ever solves anything, so that every episode makes the same number of model calls: the ideal rate is
in flight / (calls x latency). The scripted server is a separate process; environments, sandboxes and the journal are
real, and in this process.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.generation.job import opened_run
from rollmill.generation.services import GeneratorContext
from rollmill.generation.session import RolloutSession
from rollmill.inference.scripted import Script
from rollmill.jobs.episodes.job import EpisodesJob
from rollmill.jobs.episodes.parameters import CollectEpisodes

OF_IDEAL = 0.95
LOST_ANSWERS = {
    "stateful_env": '<plan>wait</plan> <actions>["no such action"]</actions>',
    "math_env": "\\boxed{0}",
    "search_env": "<questions>\nwho\n</questions> <search>harbour</search> <more>more</more>",
    "code_env": "```python\nassert False\n```",
}
"""Well-formed answers that never solve anything, by environment."""


class Collected(NamedTuple):
    """One run of episodes."""

    env_name: str
    in_flight: int
    episodes: int
    calls: int
    seconds: float
    latency_s: float

    @property
    def rate(self) -> float:
        """Episodes per second."""
        return self.episodes / self.seconds

    @property
    def of_ideal(self) -> float:
        """The rate as a share of the ideal rate, which the model's latency alone allows."""
        return self.calls * self.latency_s / self.in_flight / self.seconds

    def row(self) -> dict[str, str]:
        """Return its line of the table."""
        return {
            "environment": self.env_name,
            "in flight": str(self.in_flight),
            "episodes": str(self.episodes),
            "model calls": str(self.calls),
            "episodes/s": f"{self.rate:.2f}",
            "of ideal": f"{self.of_ideal:.3f}",
        }


def collect(env_name: str, in_flight: int, options: argparse.Namespace) -> Collected:
    """Collect episodes in a new folder."""
    episodes = in_flight * options.rounds
    script = Script(completion=LOST_ANSWERS[env_name], latency_s=options.latency_s)
    with scripted_process(script) as server, TemporaryDirectory() as folder:
        parameters = CollectEpisodes(
            env_name=env_name, model_path=script.model, base_url=[server.base_url], total_rollouts=episodes,
            concurrency=in_flight, output_dir=str(Path(folder) / "run"),
        )  # fmt: skip
        job = EpisodesJob.of(parameters)
        with opened_run(job) as run:
            progress = job.progress(run)
            with job.open_generator(GeneratorContext()) as episodes_maker:
                progress.start()
                with RolloutSession(run, episodes_maker, slots=in_flight, progress=progress) as session:
                    problems = list(run.problems())
                    began = time.monotonic()
                    tally = session.generate(problems)
                    seconds = time.monotonic() - began
            errors = [record.error.message for _, group in run.groups() for record in group if record and record.error]
        calls = server.facts()["requests"]
    if errors or tally.success:
        raise RuntimeError(f"{len(errors)} episodes failed, {tally.success} succeeded, and none should: {errors[:1]}")
    return Collected(env_name, in_flight, episodes, calls, seconds, options.latency_s)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--in_flight", type=int, nargs="+", default=[8, 32, 128], help="episodes in flight")
    parser.add_argument("--rounds", type=int, default=4, help="episodes are so many times those in flight")
    parser.add_argument("--latency_s", type=float, default=1.0, help="the model's")
    parser.add_argument("--sandboxed", type=int, default=8, help="episodes in flight of environments that run code")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    where = machine()
    runs = [
        collect(env_name, in_flight, options)
        for env_name in ("stateful_env", "search_env")
        for in_flight in options.in_flight
    ]
    runs += [collect(env_name, options.sandboxed, options) for env_name in ("math_env", "code_env")]
    show(f"episodes on {where}; model latency {options.latency_s:g} s", [run.row() for run in runs])
    targets = Targets()
    for run in runs[: 2 * len(options.in_flight)]:
        targets.at_least(f"{run.env_name}, {run.in_flight} in flight, of ideal", run.of_ideal, OF_IDEAL)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
