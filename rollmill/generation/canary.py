"""A few rollouts before the many: what the run will cost, and whether it is worth it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rollmill.errors import RunStoppedError
from rollmill.generation.run import Run
from rollmill.records import Problem, Rollout
from rollmill.statistics.throughput import format_seconds

CANARY_PROBLEMS = 8
CANARY_ROLLOUTS = 2
_NEARLY_ALL = 0.9
_FEWEST_TO_JUDGE = 8


class Projection(NamedTuple):
    """What a canary's rollouts say about the whole run."""

    rollouts: int
    """Canary rollouts that were judged: all but the failed ones."""
    failed: int
    parse_rate: float
    truncation_rate: float
    success_rate: float
    remaining: int
    shortest_s: float
    """Seconds for the rest if more requests at once are answered as fast as the canary's were."""
    longest_s: float
    """Seconds for the rest if the server does no more per second than it did for the canary."""
    tokens: int
    """Completion tokens of the rest."""
    disk_bytes: int

    def describe(self) -> str:
        """The projection in one line."""
        return (
            f"canary: {self.rollouts} rollouts, {self.parse_rate:.0%} parseable, {self.truncation_rate:.0%} truncated, "
            f"{self.success_rate:.0%} accepted; the other {self.remaining} will take {format_seconds(self.shortest_s)} "
            f"to {format_seconds(self.longest_s)}, about {self.tokens:,} tokens and {self.disk_bytes / 1e6:,.1f} MB"
        )


def choose(problems: Iterable[Problem], count: int) -> list[Problem]:
    """A few of `count` problems, spread evenly over all."""
    few = min(CANARY_PROBLEMS, count)
    places = {index * count // few for index in range(few)}
    return [problem for place, problem in enumerate(problems) if place in places]


def canary_rollouts(run: Run, chosen: Sequence[Problem]) -> list[Rollout]:
    """The canary's rollouts as they stand in the journal."""
    samples = min(CANARY_ROLLOUTS, run.num_rollout)
    return [
        rollout
        for problem in chosen
        for rollout in run.journal.group(problem.instance_id, samples)
        if rollout is not None
    ]


def project(run: Run, rollouts: Sequence[Rollout], *, slots: int) -> Projection | None:
    """What the canary's rollouts say about the rest of the run; None when not one of them was judged."""
    judged = [rollout for rollout in rollouts if rollout.verdict is not None]
    if not judged:
        return None
    count = len(judged)
    remaining = run.missing()
    latency = sum(rollout.latency_s or 0.0 for rollout in judged) / count
    size = sum(len(rollout.model_dump_json()) for rollout in judged) / count
    tokens = sum(rollout.usage.completion_tokens for rollout in judged) / count
    return Projection(
        rollouts=count,
        failed=len(rollouts) - count,
        parse_rate=sum(rollout.status == "ok" for rollout in judged) / count,
        truncation_rate=sum(rollout.finish_reason == "length" for rollout in judged) / count,
        success_rate=sum(bool(rollout.success) for rollout in judged) / count,
        remaining=remaining,
        shortest_s=remaining * latency / max(1, min(slots, remaining)),
        longest_s=remaining * latency / max(1, min(slots, count)),
        tokens=round(tokens * remaining),
        disk_bytes=round(size * remaining),
    )


def check(projection: Projection, *, directory: Path, max_tokens: int) -> None:
    """Raises `RunStoppedError` with advice when nearly all of the canary was truncated or unparseable."""
    if projection.rollouts < _FEWEST_TO_JUDGE:
        return
    if projection.truncation_rate >= _NEARLY_ALL:
        raise RunStoppedError(
            f"{projection.truncation_rate:.0%} of the canary's completions were cut off at --max_tokens {max_tokens}: "
            f"raise it and add --retry truncated, or go on all the same with --no_canary (see {directory})"
        )
    if 1 - projection.parse_rate >= _NEARLY_ALL:
        raise RunStoppedError(
            f"only {projection.parse_rate:.0%} of the canary's completions hold an answer that can be read: ask for "
            "<answer></answer> tags in --prompt_template or --system_prompt, show some with --few_shot, or choose "
            f"another --verifier; or go on all the same with --no_canary (see {directory})"
        )
