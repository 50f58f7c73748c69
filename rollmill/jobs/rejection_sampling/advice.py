"""Advice: what a user should be told about a run without asking."""

from __future__ import annotations

from rollmill.jobs.rejection_sampling.statistics import Statistics

_FEW_PARSED = 0.5
_RARELY_ACCEPTED = 0.01
_MANY_TRUNCATED = 0.1
_MANY_FAILED = 0.05


def advice(statistics: Statistics, *, temperature: float) -> list[str]:
    """One sentence or two per thing that looks wrong, worst first; empty where nothing does."""
    found = [
        _failed(statistics),
        _truncated(statistics),
        _unparseable(statistics),
        _rarely_accepted(statistics),
        _no_better_than_guessing(statistics),
        _same_samples(statistics, temperature),
    ]
    return [text for text in found if text]


def _failed(statistics: Statistics) -> str | None:
    failed, attempted = statistics.coverage.failed, statistics.coverage.judged + statistics.coverage.failed
    if not attempted or failed / attempted < _MANY_FAILED:
        return None
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in list(statistics.failed_kinds.items())[:3])
    verifier = all(kind.startswith("verifier_") for kind in statistics.failed_kinds)
    remedy = (
        "mend the verifier, then --reverify" if verifier else "see the server's log, then run again with --retry failed"
    )
    return f"{failed:,} of {attempted:,} rollouts failed outside the model ({kinds}): {remedy}"


def _truncated(statistics: Statistics) -> str | None:
    rate = statistics.truncation_rate
    if rate is None or rate < _MANY_TRUNCATED:
        return None
    return f"{rate:.0%} of the completions ended at the token limit: raise --max_tokens, then --retry truncated"


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
    what = "none" if statistics.accepted == 0 else f"{rate:.2%}"
    return (
        f"{what} of {statistics.coverage.judged:,} answers accepted: too hard for this model, or --accept_error, "
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
