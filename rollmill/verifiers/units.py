"""Recognize text after a number that does not change it: units, counted nouns, remarks."""

from __future__ import annotations

import re

from rollmill.verifiers.number_words import NUMBER_WORDS

_MOST_WORDS = 14
_LETTERS = frozenset("mgshlLtAVWNJCFK")
"""Units of one letter; other letters, and these in another case, may be variables."""
_SHORT = frozenset(
    """
    km cm mm nm kg mg ug µm µg lb lbs oz ft in yd mi hr hrs min sec ms ns ml dl cl kw mw wh
    hz pa kpa mb gb kb tb ph am pm st nd rd th mph kph rpm px sq cu bc ad
    """.split()  # noqa: SIM905
)
"""Units and endings of two or three letters; other pairs of letters may be variables (3ab)."""
_CONNECTING = frozenset({"a", "an", "of", "in", "on", "at", "is", "per", "by", "as", "he", "we", "it", "to", "my"})
_PRONOUNS = frozenset({"it", "me", "us", "he", "we"})
_BEFORE_PRONOUNS = frozenset({"in", "of", "on", "for", "with", "at", "to", "from", "does", "has"})
_CHANGING = NUMBER_WORDS | frozenset(
    """
    or and nor not no never minus plus times negative divided multiplied over under above below than between versus vs
    maybe perhaps possibly probably might could either if unless but wrong incorrect false until through except instead
    rather guess unsure unknown what otherwise alternatively pi sqrt sin cos tan log ln mod exp factorial squared cubed
    power root infinity infty inf nan half halves third thirds quarter fifth fifths sixth sixths seventh sevenths eighth
    eighths ninth ninths tenth tenths hundredths thousandths hundredth thousandth point remainder score gross wait
    actually sorry oops nothing none least most approximately lakh crore dozen i isn't aren't wasn't don't doesn't
    """.split()  # noqa: SIM905
)
"""Words that change the value of a number, or deny that it is the answer."""

_HEDGE = re.compile(
    r"\?|n['’]t\b|(?<!left )\bover\b|\b(?:or|nor|not|cannot|maybe|perhaps|possibly|probably|might|may|could|either|if|"
    r"unless|unsure|guess|unknown|wrong|incorrect|least|most|than|between|under|above|below|almost|nearly|suppose|"
    r"assum\w+|let|step|first|next|never|except|instead|wait|actually|question|asks?|given|try|trying|check\w*|was|were|"
    r"had|should|options?|choices?|equation|problem|example|versus)\b",
    re.IGNORECASE,
)
_EXPONENT = re.compile(r"(?<=[A-Za-z)])\^\{?-?[1-4]\}?")
_REMARK = re.compile(r"\s*\([^()0-9]{1,60}\)\s*$")
_ALLOWED = re.compile(r"[^\W\d_]*[\w\s/.'°%\-,:·*()]*")
_JOINED = re.compile(r"\s*[-/.:*·(']")
_JOINED_TO = re.compile(r"\s*[-:'·(]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def is_unit(text: str, *, spaced: bool = False) -> bool:
    """Return whether the text after a number is empty, or a unit or remark that does not change the number.

    `spaced` tells that there is a space before the text even if it begins with a letter.
    """
    spaced = spaced or not text[:1].isalpha()
    text = _EXPONENT.sub("", text.rstrip(" .,;\t"))
    if remark := _REMARK.search(text):
        if not _are_harmless(_WORD.findall(remark[0]), spaced=True):
            return False
        text = text[: remark.start()].rstrip()
    # Digits or a hyphen after a number may make another number of it: 3-4, 5 of 6.
    if re.search(r"[0-9]", text) or not _ALLOWED.fullmatch(text) or _JOINED.match(text):
        return False
    return _are_harmless(_WORD.findall(text), spaced=spaced)


def is_prose(text: str) -> bool:
    """Return whether the text after a number is prose, and not mathematics that the number is part of."""
    if re.search(r"[\\^*/+=<>|≤≥≠±!]", text) or _JOINED_TO.match(text):
        return False
    return _are_harmless(_WORD.findall(text)[:3], spaced=True)


def _are_harmless(words: list[str], *, spaced: bool) -> bool:
    if len(words) > _MOST_WORDS:
        return False
    for position, word in enumerate(words):
        lowered = word.lower()
        if lowered in _CHANGING:
            return False
        is_followed = position + 1 < len(words)
        is_short = len(word) <= 2 and lowered not in _SHORT and word not in _LETTERS
        is_connecting = is_followed and lowered in _CONNECTING and (spaced or position)
        is_pronoun = lowered in _PRONOUNS and position > 0 and words[position - 1].lower() in _BEFORE_PRONOUNS
        if is_short and not (is_connecting or is_pronoun):
            return False
    return True


def is_hedged(sentence: str) -> bool:
    """Return whether a sentence with a number does not assert that the number is the answer."""
    return _HEDGE.search(sentence) is not None
