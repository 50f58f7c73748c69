"""Judging a completion: by a verifier, but for what holds no answer at all."""

from __future__ import annotations

import re

from rollmill.records import Problem, Verdict
from rollmill.verifiers import CompletionJudge

REASONING_ONLY = "reasoning_only"
"""The reason of a verdict on a completion that is empty beside its thoughts."""
REFUSAL = "refusal"
CONTENT_FILTER = "content_filter"
NO_TEXT = "no_text"
NO_TEXT_REASONS = (REASONING_ONLY, REFUSAL, CONTENT_FILTER, NO_TEXT)
"""Why a completion is empty, as verdicts say it: the model thought and said nothing, it refused beside the text, a
filter took the text, or nobody says why."""

_FILTERED = re.compile(
    r"(finish_reason_)?(content_filter(ed)?|safety|image_safety|recitation|prohibited_content|blocklist|spii|sensitive|"
    r"error_toxic|guardrail_intervened|guardrails|blocked|moderation|content_policy_violation)"
)


def no_text_reason(
    text: str, *, reasoning: str | None, has_calls: bool, finish_reason: str | None, refusal: str | None
) -> str | None:
    """Return why a completion has no text, one of `NO_TEXT_REASONS`; None where it has some, or calls a tool.

    Args:
        text: The completion.
        reasoning: The thoughts before it.
        has_calls: Whether it calls tools.
        finish_reason: The server's.
        refusal: What the server says of a refusal.
    """
    if text.strip() or has_calls:
        return None
    # Gemini's OpenAI layer says `content_filter: RECITATION`.
    name = (finish_reason or "").partition(":")[0].strip().rpartition(".")[2].lower().replace("-", "_")
    if refusal or name == REFUSAL:
        return REFUSAL
    if _FILTERED.fullmatch(name):
        return CONTENT_FILTER
    return REASONING_ONLY if reasoning else NO_TEXT


REFUSED = "problem_refused"
"""The type of the error of a rollout whose problem a later verifier cannot judge: it is in no rate."""


async def verify_completion(
    verifiers: CompletionJudge, problem: Problem, completion: str, *, no_text: str | None, seed: int = 0
) -> Verdict:
    """Return the verdict on a completion; one without text is unparseable for that reason, whatever the verifier says.

    Where nobody says why there is no text, a verifier that finds an answer in nothing is right. Raises `VerifierFailed`
    as the verifier's pool does.

    Args:
        verifiers: The verifier.
        problem: What the completion answers.
        completion: Its text.
        no_text: Why it has none, see `no_text_reason`.
        seed: The rollout's, for verifiers that draw.
    """
    verdict = await verifiers.verify(problem, completion, seed=seed)
    if no_text is None or (no_text == NO_TEXT and verdict.status == "ok"):
        return verdict
    return Verdict(verifier=verdict.verifier, status="unparseable", reason=no_text, reward=0.0, success=False)
