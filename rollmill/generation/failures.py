"""Summarize a run's failed rollouts, and name a remedy for the most frequent failure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rollmill.errors import RunStoppedError
from rollmill.generation.run import Run
from rollmill.inference.server_errors import is_quota_exhausted, is_too_long
from rollmill.records import Rollout
from rollmill.statistics.failures import FailureCounts, FailureWords
from rollmill.terminal.escapes import visible_line

_MOST_SHOWN = 3
_EMPTY_ACCOUNT = "the account at the server is empty: fill it"
_REMEDIES = (
    (r"verifier_(unavailable|unparseable)", "wait until the judge or the sandbox answers (completions are kept)"),
    (r"verifier_\w+", "fix the verifier, then --reverify"),
    (r"http_40[13]|invalid_api_key|\w*authentication\w*|\w*permission\w*",
     "give the right key (VLLM_API_KEY, or that of the endpoint's block)"),
    (r"http_402|insufficient_\w+", _EMPTY_ACCOUNT),
    (r"http_404|\w*not_found\w*", "give an address and a model name that the server knows"),
    (r"http_429|(\w+_)?(rate_limit|overload|throttl)\w*", "lower the concurrency, or raise the server's limit"),
    (r"redirect", "give the address that the server redirects to"),
    (r"http_4(08|09|24|25|98)", "see the server's log"),
    (r"http_4\d\d", "change what the server's message names"),
    (r"malformed_response", "give the address of an OpenAI-compatible server, or see its log"),
    (r"timeout", "raise --request_timeout, or lower the concurrency"),
    (r"environment_\w+|tool|sandbox\w*", "see the messages of the environment or its sandbox"),
)  # fmt: skip
"""Patterns of error types, first match first, each with what to do about it."""
_TOO_LONG = (
    "give a smaller --max_tokens or shorter prompts, which is another run and takes another output directory, or start "
    "the server with a longer context (--max-model-len)"
)
_JUDGE_REFUSES = re.compile(r"the judge: http_4(?!08|09|24|25|29|98)\d\d\b")
_FIX_JUDGE = "change what the judge's message names (its key is in JUDGE_API_KEY; completions are kept)"
_RETRY = "then run the same command with --retry failed"


def count_failures(run: Run) -> list[FailureWords]:
    """Count the error messages of a run's failed rollouts, from the journal; most frequent first."""
    counts = FailureCounts()
    for type_, message in run.journal.failures():
        counts.add(type_, message)
    return counts.most_common()


def count_failures_of(rollouts: Iterable[Rollout]) -> list[FailureWords]:
    """Count the error messages of failed rollouts among these; most frequent first."""
    counts = FailureCounts()
    for rollout in rollouts:
        if rollout.error is not None:
            counts.add(rollout.error.type, rollout.error.message)
    return counts.most_common()


def failure_lines(failures: Sequence[FailureWords]) -> list[str]:
    """Return the most frequent failures, one line each with its count, and a line for the number of others."""
    lines = [_failure_line(failure) for failure in failures]
    more = sum(each.count for each in failures[_MOST_SHOWN:])
    return [*lines[:_MOST_SHOWN], *([f"{more:,} x others"] if more else [])]


def _failure_line(failure: FailureWords) -> str:
    if not failure.words:
        return f"{visible_line(failure.type)} {failure.count:,}"
    return f"{failure.count:,} x {visible_line(failure.type)}: {visible_line(failure.words)}"


def remedy(failures: Sequence[FailureWords]) -> str:
    """Return what to do about the most frequent failure, and how to continue then."""
    first = failures[0]
    if _JUDGE_REFUSES.match(first.words):
        return f"{_FIX_JUDGE}, {_RETRY}"
    if is_too_long(first.words):
        return f"{_TOO_LONG}, {_RETRY}"
    if is_quota_exhausted(first.words) and not first.type.startswith("verifier_"):
        return f"{_EMPTY_ACCOUNT}, {_RETRY}"
    matching = (text for pattern, text in _REMEDIES if re.fullmatch(pattern, first.type))
    text = next(matching, "see the server's log")
    return text if "--reverify" in text else f"{text}, {_RETRY}"


def failure_note(failures: Sequence[FailureWords], attempted: int, noun: str = "rollouts") -> str | None:
    """Return one line on a run's failures, with the most frequent messages; None where nothing failed.

    Args:
        failures: Counted error messages, most frequent first.
        attempted: Number of rollouts, failed or not.
        noun: Plural noun for rollouts in this job, such as `episodes`.
    """
    if not failures:
        return None
    failed = sum(each.count for each in failures)
    return (
        f"{failed:,} of {attempted:,} {noun} failed outside the model ({'; '.join(failure_lines(failures))}): "
        f"{remedy(failures)}"
    )


def check_not_all_failed(run: Run, *, needs_verdicts: bool = True, noun: str = "rollouts") -> None:
    """Raise `RunStoppedError`, with the most frequent messages, when every rollout of a run failed.

    Args:
        run: The run, at its end.
        needs_verdicts: Whether a completion without a verdict counts as failed.
        noun: Plural noun for rollouts in this job, such as `episodes`.
    """
    journaled, failed, without_completion = run.journal.counts()
    if journaled and journaled == (failed if needs_verdicts else without_completion):
        failures = count_failures(run)
        words = "; ".join(failure_lines(failures))
        raise RunStoppedError(f"all {failed:,} {noun} failed: {words}: {remedy(failures)} (see {run.directory})")
