"""The canary: a few rollouts before the run, to project its cost and to stop a run that would be useless."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rollmill.errors import RunStoppedError
from rollmill.generation.failures import count_failures_of, failure_lines, remedy
from rollmill.generation.run import Run
from rollmill.generation.verification import CONTENT_FILTER, NO_TEXT, NO_TEXT_REASONS, REASONING_ONLY, REFUSAL
from rollmill.records import Problem, Rollout, is_cut_off
from rollmill.statistics.throughput import format_seconds

CANARY_PROBLEMS = 8
CANARY_ROLLOUTS = 2
_NEARLY_ALL = 0.9
_FEWEST_TO_JUDGE = 8
_NO_TEXT = {
    REASONING_ONLY: "the server returns everything that the model writes as reasoning: check its reasoning parser, or "
    "turn thinking off (--chat_template_kwargs)",
    REFUSAL: "the model refuses: ask for something else, or use another model",
    CONTENT_FILTER: "the server's content filter removes it: ask for something else, or use another server",
    NO_TEXT: "check the server's responses",
}
"""What to do about empty completions, by their reason."""


class Projection(NamedTuple):
    """Estimated quality and cost of the whole run, from the canary's rollouts."""

    rollouts: int
    """Canary rollouts that were judged: all but the failed ones."""
    failed: int
    parse_rate: float
    truncation_rate: float
    success_rate: float
    remaining: int
    shortest_s: float
    """Seconds for the rest, if latency per request stays the same at the run's full concurrency."""
    longest_s: float
    """Seconds for the rest, if the server's throughput stays what it was during the canary."""
    tokens: int
    """Completion tokens of the rest."""
    disk_bytes: int
    no_text: tuple[str, int] | None = None
    """The most frequent reason for an empty completion, and its count; see `NO_TEXT_REASONS`."""

    def describe(self) -> str:
        """Return the projection in one line."""
        return (
            f"canary: {self.rollouts} rollouts, {self.parse_rate:.0%} parseable, {self.truncation_rate:.0%} truncated, "
            f"{self.success_rate:.0%} accepted; the other {self.remaining} will take {format_seconds(self.shortest_s)} "
            f"to {format_seconds(self.longest_s)}, about {self.tokens:,} tokens and {self.disk_bytes / 1e6:,.1f} MB"
        )


def choose(problems: Iterable[Problem], count: int) -> list[Problem]:
    """Return at most `CANARY_PROBLEMS` of `count` problems, at evenly spaced indices."""
    few = min(CANARY_PROBLEMS, count)
    indices = {index * count // few for index in range(few)}
    return [problem for index, problem in enumerate(problems) if index in indices]


def canary_rollouts(run: Run, chosen: Sequence[Problem]) -> list[Rollout]:
    """Return the canary's rollouts, read from the journal."""
    samples = min(CANARY_ROLLOUTS, run.num_rollout)
    return [
        rollout
        for problem in chosen
        for rollout in run.journal.group(problem.instance_id, samples)
        if rollout is not None
    ]


def project(run: Run, rollouts: Sequence[Rollout], *, slots: int) -> Projection | None:
    """Project the rest of the run from the canary's rollouts; None when none of them has a verdict."""
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
        truncation_rate=sum(is_cut_off(rollout.finish_reason) for rollout in judged) / count,
        success_rate=sum(bool(rollout.success) for rollout in judged) / count,
        remaining=remaining,
        # Little's law: throughput is concurrency divided by latency; the canary itself ran `count` at a time at most.
        shortest_s=remaining * latency / max(1, min(slots, remaining)),
        longest_s=remaining * latency / max(1, min(slots, count)),
        tokens=round(tokens * remaining),
        disk_bytes=round(size * remaining),
        no_text=next(iter(_no_text_reasons(judged).most_common(1)), None),
    )


def _no_text_reasons(rollouts: Sequence[Rollout]) -> Counter[str]:
    reasons = (rollout.verdict.reason for rollout in rollouts if rollout.verdict is not None)
    return Counter(reason for reason in reasons if reason in NO_TEXT_REASONS)


def check_some_answered(rollouts: Sequence[Rollout], *, directory: Path) -> None:
    """Raise `RunStoppedError`, with the most frequent error messages, when all of a canary's rollouts failed."""
    failures = count_failures_of(rollouts)
    if failures and sum(each.count for each in failures) == len(rollouts):
        words = "; ".join(failure_lines(failures))
        raise RunStoppedError(
            f"all {len(rollouts)} rollouts of the canary failed: {words}: {remedy(failures)}, "
            f"or continue anyway with --no_canary (see {directory})"
        )


def check(projection: Projection, *, directory: Path, max_tokens: int) -> None:
    """Raise `RunStoppedError` with advice when nearly all of the canary was truncated or unparseable."""
    if projection.rollouts < _FEWEST_TO_JUDGE:
        return
    if projection.truncation_rate >= _NEARLY_ALL:
        raise RunStoppedError(
            f"{projection.truncation_rate:.0%} of the canary's completions were cut off at --max_tokens {max_tokens}: "
            f"raise it and add --retry truncated, or continue anyway with --no_canary (see {directory})"
        )
    if projection.no_text is not None and projection.no_text[1] >= _NEARLY_ALL * projection.rollouts:
        reason, count = projection.no_text
        raise RunStoppedError(
            f"{count} of the canary's {projection.rollouts} completions have no text ({reason}): {_NO_TEXT[reason]}; "
            f"or continue anyway with --no_canary (see {directory})"
        )
    if 1 - projection.parse_rate >= _NEARLY_ALL:
        raise RunStoppedError(
            f"only {projection.parse_rate:.0%} of the canary's completions hold an answer that can be read: ask for "
            "<answer></answer> tags in --prompt_template or --system_prompt, show some with --few_shot, or choose "
            f"another --verifier; or continue anyway with --no_canary (see {directory})"
        )
