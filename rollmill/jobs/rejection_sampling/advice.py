"""Advice: warnings to the user about the results of a run."""

from __future__ import annotations

from rollmill.generation.failures import failure_note
from rollmill.generation.verification import REASONING_ONLY, REFUSED
from rollmill.jobs.rejection_sampling.statistics import Statistics
from rollmill.statistics.failures import FailureWords

# Shares of the rollouts from which on, or up to which, there is a warning.
_FEW_PARSED = 0.5
_RARELY_ACCEPTED = 0.01
_MANY_TRUNCATED = 0.1
_MANY_FAILED = 0.05
_MANY_WITHOUT_TEXT = 0.05


def advice(statistics: Statistics, *, temperature: float) -> list[str]:
    """Return a sentence or two for each problem of the results, the worst first; none where all is well."""
    texts = [
        _failed(statistics),
        _refused(statistics),
        _truncated(statistics),
        _reasoning_only(statistics),
        _no_text(statistics),
        _unparseable(statistics),
        _rarely_accepted(statistics),
        _no_better_than_guessing(statistics),
        _same_samples(statistics, temperature),
    ]
    return [text for text in texts if text]


def _failed(statistics: Statistics) -> str | None:
    kinds_failed = {kind: count for kind, count in statistics.failed_kinds.items() if kind != REFUSED}
    failed = sum(kinds_failed.values())
    attempted = statistics.coverage.judged + failed
    if not attempted or failed / attempted < _MANY_FAILED:
        return None
    if statistics.failed_words:
        words = [failure for failure in statistics.failed_words if failure.type != REFUSED]
    else:
        words = [FailureWords(kind, "", count) for kind, count in kinds_failed.items()]
    return failure_note(words, attempted)


def _refused(statistics: Statistics) -> str | None:
    refused = statistics.failed_kinds.get(REFUSED, 0)
    if not refused:
        return None
    return (
        f"{refused:,} rollouts are of problems that the verifier cannot judge ({REFUSED}): they are in no rate, and "
        "their errors have the reason"
    )


def _truncated(statistics: Statistics) -> str | None:
    rate = statistics.truncation_rate
    if rate is None or rate < _MANY_TRUNCATED:
        return None
    return f"{rate:.0%} of the completions ended at the token limit: raise --max_tokens, then --retry truncated"


def _reasoning_only(statistics: Statistics) -> str | None:
    count, judged = statistics.reasoning_only, statistics.coverage.judged
    if not judged or count / judged < _MANY_WITHOUT_TEXT:
        return None
    return (
        f"{count / judged:.0%} of the answers are thoughts alone (reasoning_only): raise --max_tokens, lower "
        "--reasoning_effort, or see whether the server's --reasoning-parser fits the model"
    )


def _no_text(statistics: Statistics) -> str | None:
    counts = {reason: count for reason, count in statistics.no_text.items() if reason != REASONING_ONLY}
    judged = statistics.coverage.judged
    if not judged or sum(counts.values()) / judged < _MANY_WITHOUT_TEXT:
        return None
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    return (
        f"{sum(counts.values()) / judged:.0%} of the answers have no text ({reasons}): the server or its filter gives "
        "none; look at finish_reason and metadata.refusal of some rows"
    )


def _unparseable(statistics: Statistics) -> str | None:
    rate = statistics.parse_rate
    if rate is None or rate > _FEW_PARSED:
        return None
    return (
        f"{1 - rate:.0%} of the answers cannot be parsed: ask for <answer> tags in --prompt_template or "
        "--system_prompt, or show some with --few_shot"
    )


def _rarely_accepted(statistics: Statistics) -> str | None:
    rate = statistics.accepted_of_judged
    if rate is None or rate >= _RARELY_ACCEPTED or statistics.coverage.ok == 0:
        return None
    accepted = "none" if statistics.accepted == 0 else f"{rate:.2%}"
    return (
        f"{accepted} of {statistics.coverage.judged:,} answers accepted: too hard for this model, or --accept_error, "
        "--verifier or --answer_field does not fit; look at some rows of the results"
    )


def _no_better_than_guessing(statistics: Statistics) -> str | None:
    guess, model = statistics.guess_baseline.mean_least_error, statistics.guess_baseline.model_mean_least_error
    if guess is None or model is None or model < guess:
        return None
    return (
        f"the model's mean least error ({model:.4g}) is no better than guessing from the ground truths' own "
        f"distribution with as many tries ({guess:.4g})"
    )


def _same_samples(statistics: Statistics, temperature: float) -> str | None:
    if temperature != 0 or statistics.num_rollout == 1:
        return None
    return (
        f"at --temperature 0 the {statistics.num_rollout} rollouts of a problem are the same answer: "
        "set a temperature, or --num_rollout 1"
    )
