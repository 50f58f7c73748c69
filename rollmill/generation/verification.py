"""Verify a completion; empty ones are unparseable whatever the verifier says."""

from __future__ import annotations

import re

from rollmill.records import Problem, Verdict
from rollmill.verifiers import CompletionJudge

REASONING_ONLY = "reasoning_only"
"""The reason of a verdict on a completion that has reasoning content only."""
REFUSAL = "refusal"
CONTENT_FILTER = "content_filter"
NO_TEXT = "no_text"
NO_TEXT_REASONS = (REASONING_ONLY, REFUSAL, CONTENT_FILTER, NO_TEXT)
"""Reasons for an empty completion: reasoning without an answer, a refusal in a field of its own, a content filter, or
no known reason."""

_FILTERED = re.compile(
    r"(finish_reason_)?(content_filter(ed)?|safety|image_safety|recitation|prohibited_content|blocklist|spii|sensitive|"
    r"error_toxic|guardrail_intervened|guardrails|blocked|moderation|content_policy_violation)"
)


def no_text_reason(
    text: str, *, reasoning: str | None, has_calls: bool, finish_reason: str | None, refusal: str | None
) -> str | None:
    """Return the reason why a completion has no text, one of `NO_TEXT_REASONS`; None where it has text or tool calls.

    Args:
        text: The completion.
        reasoning: Reasoning content of the message; None where the server sends none.
        has_calls: Whether the message has tool calls.
        finish_reason: As the server sent it.
        refusal: The message's `refusal` field.
    """
    if text.strip() or has_calls:
        return None
    # Names vary in case, separators and prefixes; Gemini's OpenAI layer sends `content_filter: RECITATION`.
    name = (finish_reason or "").partition(":")[0].strip().rpartition(".")[2].lower().replace("-", "_")
    if refusal or name == REFUSAL:
        return REFUSAL
    if _FILTERED.fullmatch(name):
        return CONTENT_FILTER
    return REASONING_ONLY if reasoning else NO_TEXT


REFUSED = "problem_refused"
"""Error type of rollouts whose problem a later verifier cannot judge; they are excluded from rates."""


async def verify_completion(
    verifiers: CompletionJudge, problem: Problem, completion: str, *, no_text: str | None, seed: int = 0
) -> Verdict:
    """Return the verdict on a completion; an empty one is unparseable, with `no_text` as the reason.

    Where the reason is not known (`NO_TEXT`), a verifier that accepts an empty answer is right. Raises
    `VerifierFailed` as the verifier's pool does.

    Args:
        verifiers: Judges the completion.
        problem: The problem that was asked.
        completion: Its text.
        no_text: The reason why it is empty, see `no_text_reason`; None where it is not.
        seed: The rollout's seed, for verifiers that sample.
    """
    verdict = await verifiers.verify(problem, completion, seed=seed)
    if no_text is None or (no_text == NO_TEXT and verdict.status == "ok"):
        return verdict
    return Verdict(verifier=verdict.verifier, status="unparseable", reason=no_text, reward=0.0, success=False)
