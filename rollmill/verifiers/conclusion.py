r"""Reduce prose to its conclusion: `... = 288 seats, so it can seat 288 people`, `15 stickers (and keeps 25)`.

Only parts that do not change the answer are removed: the derivation, a reason, a remark, a denied alternative, a check.
A part that doubts the answer is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\s.!?])")
_SO = re.compile(
    r"(?:[,;:]|\.\.\.|…|[—–])\s*(?:and\s+)?(?:so|thus|therefore|hence)\b(?!\s+(?:that|far|many|much|on)\b),?\s+", re.I
)
_REASON = re.compile(r",?\s+(?:because|since|which|where|as (?:the|it|we|there)|obtained|found by)\b", re.IGNORECASE)
_LEADING_REASON = re.compile(r"^\s*(?:Since|Because|As)\b.{1,300}?,\s+(?=[a-z]{2,}\b)")
_REMARK = re.compile(r"\s+\((?:(?=[^()]*[A-Za-z]{2})|(?=\s*[=≈]))(?P<remark>[^()]{1,200})\)(?=[.!\s]*$)")
_DASH = re.compile(r"\s+(?:—|--|[–-](?=\s+[A-Za-z]{2,}))\s*(?P<remark>[^—]{1,300})$|—(?P<tight>[^—]{1,300})$")
_DENIAL = re.compile(
    r",?\s+(?:and\s+)?(?:not|rather than|instead of)\s+"
    r"(?:\$[^$]*[^$\s]\$|\\\(.{1,80}?\\\)|\S*[0-9]\S*)(?:\s+[A-Za-z]+)?(?=[.!]*$)",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\?|n['’]t\b|\b(?:or|not|no|nope|wait|maybe|perhaps|possibly|probably|might|may|could|but|alternatively|actually|rather|"
    r"instead|if|unless|except|either|sorry|oops|hmm|correction|wrong|incorrect|mistake|unsure|guess|otherwise|"
    r"though|although|however)\b",
    re.IGNORECASE,
)
_CHECK = re.compile(
    r"^[ \t#*_>-]{0,6}(?:(?:let me|let's|let us|we can|to|now,?|i(?:'ll| will| can)?)\s+)?(?:(?:now|quickly|just)\s+)?"
    r"(?:double[- ]?check|check|verif(?:y|ication))\b",
    re.IGNORECASE | re.MULTILINE,
)
_FAILED = re.compile(r"[≠✗✘❌]|\\neq?\b|\b(?:so|therefore|thus|hence|must)\b", re.IGNORECASE)
_STRUCK = re.compile(
    r"~~[^~\n]{1,300}~~|<(?P<tag>s|del|strike)>[^<\n]{1,300}</(?P=tag)>|\\(?:sout|st)\s*\{[^{}\n]{1,300}\}",
    re.IGNORECASE,
)
_MARKS = re.compile("[✓✔✅☑🎉\ufe0f]")
_RESULT = re.compile(
    r"\b(?:makes?|gives?|equals?|totals?|leaves?|yields?|(?:comes?|sums?|amounts?|adds? up) to)\s+(?P<result>[^\s].*)$",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"\s+(?:for|in|after|when|at|out of|among|per|each|every|during|within)\s+(?=[^0-9]*[0-9])", re.IGNORECASE
)
_CONCLUDES = re.compile(r"(?:so|thus|therefore|hence|in total|altogether|in all|overall|finally)\b", re.IGNORECASE)
_GAP = re.compile(r"\s{3,}")
_LONGEST = 2000


def remove_struck(text: str) -> str:
    """Remove struck-out text and check marks."""
    if "~~" in text or "<" in text or "\\s" in text:
        text = _STRUCK.sub(" ", text)
    return text if text.isascii() else _MARKS.sub("", text)


def remove_check(text: str) -> str:
    """Remove a check of the answer from the end of a text, unless it doubts the answer or states another one."""
    for match in _CHECK.finditer(text, max(0, len(text) - _LONGEST)):
        before, check = text[: match.start()], text[match.start() :]
        if before.strip() and not _DOUBT.search(check) and not _FAILED.search(check):
            return before.rstrip()
    return text


def last_sentence(line: str) -> str:
    """Return the last sentence of a line."""
    return _SENTENCE.split(line)[-1]


def conclusion(sentence: str) -> str:
    """Return the concluding clause of a sentence, without reasons, remarks and denied alternatives."""
    sentence = _GAP.sub("  ", sentence[-_LONGEST:])
    starts = [match.end() for match in _SO.finditer(sentence) if sentence[: match.start()].strip()]
    clause = remove_comment(sentence[starts[-1] :] if starts else _LEADING_REASON.sub("", sentence))
    # "15, not 20": the denied number would make two candidates.
    denial = _DENIAL.search(clause)
    if denial and re.search(r"[0-9]", clause[: denial.start()]):
        clause = clause[: denial.start()] + clause[denial.end() :]
    return clause


def remove_comment(text: str) -> str:
    """Remove a reason, and a remark in brackets or after a dash, from the end of a text."""
    text = remove_reason(text)
    for pattern in (_DASH, _REMARK):
        match = pattern.search(text)
        if match and text[: match.start()].strip() and not _DOUBT.search(match[0]):
            text = _cut_remark(text, match)
    return text.strip()


def remove_reason(text: str) -> str:
    """Remove a "because", "since" or "which" and all text after it."""
    reason = _REASON.search(text)
    return text[: reason.start()] if reason and text[: reason.start()].strip() else text


def readings(clause: str, *, is_final: bool) -> Iterator[str]:
    """Yield parts of a clause with several numbers that may contain its result alone.

    Args:
        clause: The clause, as `conclusion` returns it.
        is_final: Whether it is the whole text, so that it is the answer even without a word such as "so".
    """
    if result := _RESULT.search(clause):
        yield result["result"]
    phrase = _PHRASE.search(clause)
    if phrase and (is_final or _CONCLUDES.match(clause)):
        yield clause[: phrase.start()]


def _cut_remark(text: str, match: re.Match[str]) -> str:
    r"""Remove the match from the text, but keep a remark that is an equation, as in `55 (= 80 - 25)`."""
    remark = match.groupdict().get("remark") or ""
    kept = f" {remark.strip()}" if remark.lstrip().startswith(("=", "≈")) else ""
    return text[: match.start()] + kept + text[match.end() :]
