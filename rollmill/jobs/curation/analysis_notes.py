"""Notes on an analysis: faults of a table of rollouts that a user should know about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollmill.reports.plots.labels import counted, one_line, share

if TYPE_CHECKING:
    from rollmill.jobs.curation.analysis_result import Analysis

_MANY_FAILED = 0.05
_MANY_UNPARSEABLE = 0.2
_MANY_TRUNCATED = 0.1
_MANY_EMPTY = 0.05
_MOSTLY_IDENTICAL = 0.5
_RARE, _NEARLY_ALL = 0.01, 0.99
_FEW = 10
"""A success rate of fewer verdicts is too uncertain for a note."""


def make_notes(analysis: Analysis) -> list[str]:
    """Return one sentence per apparent fault, the worst first."""
    notes = [
        _quarantined(analysis),
        failed_note(analysis),
        _contradicted(analysis),
        _identical(analysis),
        _rarely_right(analysis),
        _nearly_always_right(analysis),
        _unparseable(analysis),
        _truncated(analysis),
        _empty(analysis),
        _without_reward(analysis),
        _open_calls(analysis),
    ]
    return [text for text in notes if text]


def _quarantined(analysis: Analysis) -> str | None:
    count = analysis.quarantined
    return (
        f"{counted(count, 'row')} of the input could not be used and {_is(count)} in none of the numbers"
        if count
        else None
    )


def failed_note(analysis: Analysis) -> str | None:
    """Return the note on many failed rollouts, with their types; None where there are few."""
    if not analysis.failed or analysis.failed < _MANY_FAILED * analysis.rollouts:
        return None
    kinds = ", ".join(f"{one_line(kind)} {count:,}" for kind, count in list(analysis.errors.items())[:3])
    return (
        f"{analysis.failed:,} of {counted(analysis.rollouts, 'rollout')} failed outside the model"
        f"{f' ({kinds})' if kinds else ''}; they are in neither the success rate nor the rewards"
    )


def _contradicted(analysis: Analysis) -> str | None:
    count = analysis.contradicted
    if not count:
        return None
    verb, pronoun = ("are", "they are") if count > 1 else ("is", "it is")
    return (
        f"{counted(count, 'rollout')} {verb} recorded as success, but the evaluation says no: "
        f"{pronoun} counted as not successful"
    )


def _identical(analysis: Analysis) -> str | None:
    several, same = analysis.repeated_problems, analysis.identical_problems
    if not same or same < _MOSTLY_IDENTICAL * several:
        return None
    where = "the only problem" if several == 1 else f"{same:,} of {several:,} problems"
    return f"all completions are the same in {where} with several: sample at a higher temperature, or once per problem"


def _rarely_right(analysis: Analysis) -> str | None:
    rate = analysis.success_rate
    if rate is None or rate > _RARE or analysis.verdicts < _FEW:
        return None
    what = "none" if analysis.successes == 0 else f"only {share(analysis.successes, analysis.verdicts)}"
    return (
        f"{what} of {analysis.verdicts:,} judged rollouts is right: "
        "too hard for this model, or the evaluation does not work"
    )


def _nearly_always_right(analysis: Analysis) -> str | None:
    rate = analysis.success_rate
    if rate is None or rate < _NEARLY_ALL or analysis.verdicts < _FEW:
        return None
    what = "all" if rate == 1 else share(analysis.successes, analysis.verdicts)
    return (
        f"{what} of {analysis.verdicts:,} judged rollouts are right: "
        "too easy to tell good from bad, or the evaluation is too lenient"
    )


def _unparseable(analysis: Analysis) -> str | None:
    if not analysis.unparseable or analysis.unparseable < _MANY_UNPARSEABLE * analysis.judged:
        return None
    return (
        f"{share(analysis.unparseable, analysis.judged)} of the answers cannot be parsed: "
        "say in the prompt how an answer must be written"
    )


def _truncated(analysis: Analysis) -> str | None:
    truncated, known = analysis.truncated, sum(analysis.finish_reasons.values()) or analysis.rollouts
    if not truncated or truncated < _MANY_TRUNCATED * known:
        return None
    return f"{share(truncated, known)} of the completions ended at the token limit: raise --max-tokens"


def _empty(analysis: Analysis) -> str | None:
    if not analysis.empty or analysis.empty < _MANY_EMPTY * analysis.rollouts:
        return None
    thoughts = f"; in {analysis.reasoning_only:,} of them it only thought" if analysis.reasoning_only else ""
    return f"in {analysis.empty:,} of {counted(analysis.rollouts, 'rollout')} the model wrote nothing{thoughts}"


def _open_calls(analysis: Analysis) -> str | None:
    unanswered, stray = analysis.unanswered_calls, analysis.stray_results
    words = {"tool calls have no result": unanswered, "results answer no tool call": stray}
    return ", ".join(f"{count:,} {what}" for what, count in words.items() if count) or None


def _without_reward(analysis: Analysis) -> str | None:
    missing = analysis.reward_missing
    if not missing:
        return None
    which = (
        "no judged rollout has"
        if missing == analysis.judged
        else f"{missing:,} of {analysis.judged:,} judged rollouts have no"
    )
    return f"{which}{' a' if missing == analysis.judged else ''} reward: rules about rewards drop what has none"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
