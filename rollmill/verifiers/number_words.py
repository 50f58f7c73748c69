"""Parse numbers in English words: zero, twenty-one, one hundred and five, two million."""

from __future__ import annotations

import re

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_UNITS = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_THOUSANDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

NUMBER_WORDS = frozenset({*_UNITS, *_THOUSANDS, "hundred"})
_WORD = re.compile(r"[\s-]*([A-Za-z]+)")


def read_words(text: str) -> tuple[int, str] | None:
    """Parse the number in words at the beginning of a text and return it with the rest; None if there is none.

    Words that do not continue the number (`five six`) are left in the rest.
    """
    # `total` sums the parts up to the last thousand or million, `part` is the number below 1000 after it.
    total, part, last = 0, 0, None
    at, is_begun = 0, False
    while match := _WORD.match(text, at):
        word = match[1].lower()
        if word == "and" and is_begun and (following := _WORD.match(text, match.end())):
            if following[1].lower() not in _UNITS or last not in {"hundred", *_THOUSANDS}:
                break
            match, word = following, following[1].lower()
        if word in _UNITS:
            if not _continues(part, last, _UNITS[word]):
                break
            part += _UNITS[word]
        elif word == "hundred" and 0 < part < 100 and last in _UNITS:
            part *= 100
        elif word in _THOUSANDS and is_begun and 0 < part < 1000:
            # Scales must decrease: "two thousand three million" is no number.
            if total and total % (1000 * _THOUSANDS[word]):
                break
            total, part = total + part * _THOUSANDS[word], 0
        else:
            break
        last, at, is_begun = word, match.end(), True
    return (total + part, text[at:]) if is_begun else None


def _continues(part: int, last: str | None, value: int) -> bool:
    """Return whether a number below 100 may follow the word `last`: as the first, after a scale, or 1 to 9 after tens.

    `part` is the number so far.
    """
    if last is None or last == "hundred" or last in _THOUSANDS:
        return value > 0 or last is None
    return last in _TENS and 0 < value < 10
