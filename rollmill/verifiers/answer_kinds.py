"""Kinds of answers that are not computed: words, dates, codes; and lists, of which each item is an answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from rollmill.verifiers.plain_text import fold

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = r"(?P<month>" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS) + r")\.?"
_DATES = (
    re.compile(r"(?P<year>[0-9]{4})([-/.])(?P<number>[0-9]{1,2})\2(?P<day>[0-9]{1,2})"),
    re.compile(rf"{_MONTH}\s+(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year>[0-9]{{4}})", re.IGNORECASE),
    re.compile(rf"{_MONTH}\s+(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?", re.IGNORECASE),
    re.compile(rf"(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}", re.IGNORECASE),
    re.compile(rf"(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?\s+(?P<year>[0-9]{{4}})", re.IGNORECASE),
)
_WORDS = re.compile(r"(?=.*[^\W\d_])[^\W\d_][^\W\d_ .,'’&-]*(?:[ .,'’&-]+[^\W\d_]+)*")
_CODE = re.compile(
    r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}"  # a date
    r"|v?[0-9]+(?:\.[0-9]+){2,}(?:[-+.][0-9A-Za-z]+)*|v[0-9]+(?:\.[0-9]+)*"  # versions, addresses
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?:\s?[ap]\.?m\.?)?"  # times
    r"|0[0-9]+(?:[- ][0-9]+)*|\+?[0-9]{2,}(?:-[0-9]+)+|[0-9]+(?:-[0-9]+)+"  # telephone numbers, scores
    r"|(?=[0-9-]*[A-Za-z])[0-9A-Za-z]{2,}-[0-9A-Za-z-]+|[A-Za-z]{2,}[0-9]+[A-Za-z0-9]*|[A-Z][0-9]{2,}[A-Za-z0-9]*"
    r"|[A-Za-z]{2,}(?: [A-Za-z]+)* v?[0-9]+(?:\.[0-9]+)*",  # Python 3.10
    re.IGNORECASE,
)
_DIFFERENCE = re.compile(r"[0-9]*[a-z]{0,2}(?:-[0-9]*[a-z]{0,2})+")
_CAPITALS = re.compile(
    r"(?=.*[0-9])[A-Z]{2,4}(?:[- ][A-Z0-9]{1,6})+|"
    r"[A-Z][0-9]+[A-Z0-9]*|[0-9]+[A-Z]|[0-9A-Z]+\s*_\s*\{?\s*[0-9]{1,2}\s*\}?"
)  # squares, seats; digits to a base
_CODE_IN_PROSE = re.compile(r"(?<![\w.])[0-9A-Za-z+]*[0-9][\w.:/+-]*(?:\s?[ap]m\b)?")
_OPENED = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_NAME = re.compile(r"\s*([A-Za-z](?:_?\{?[0-9A-Za-z]{1,3}\}?)?)\s*=(?!=)")
_PLUS_MINUS = re.compile(r"(?P<before>.*)±(?P<after>.+)", re.DOTALL)
_NAMED_TUPLE = re.compile(r"\s*\((?P<names>\s*\\?[A-Za-z]+\s*(?:,\s*\\?[A-Za-z]+\s*)+)\)\s*=\s*(?=[(\\])")
_MATRIX = re.compile(r"\\begin\{(?P<kind>[pb]?matrix|smallmatrix)\}(?P<rows>.*)\\end\{(?P=kind)\}", re.DOTALL)
_MEMBER = re.compile(r"^\\?[A-Za-z]\s*\\in\b\s*")
_ALL_REAL = re.compile(r"\\mathbb\s*\{?R\}?|\\R|all real numbers|\\mathbb\s*\{?\s*R\s*\}?", re.IGNORECASE)
_ORDER = re.compile(r"[<>≤≥]")
_INEQUALITY = re.compile(
    r"(?:(?P<a>[^<>≤≥]+?)\s*(?P<first>[<≤>≥])\s*)?(?P<name>\\?[A-Za-z]|\\[a-z]+)\s*"
    r"(?:(?P<second>[<≤>≥])\s*(?P<b>[^<>≤≥]+))?"
)
_LEADING_AND = re.compile(r"\s*(?:and|or)\s+")
_AND_OR = re.compile(r",?\s+(?:and|or)\s+|\s*;\s*")
_IN_ORDER = re.compile(
    r"\b(?:sort\w*|order(?:ed|ing)?|arrange\w*|rearrange\w*|rank\w*|ascending|descending|increasing|decreasing|sequence|"
    r"respectively|(?:next|first|last) \w+ (?:terms|numbers|elements)|(?:least|smallest|lowest|shortest) to|"
    r"(?:greatest|largest|highest|longest) to|reverse\w*|permut\w*|steps?|path|route|coordinates?|then)\b",
    re.IGNORECASE,
)
_ANY_ORDER = re.compile(
    r"\b(?:all|solutions?|solve\w*|roots?|zeros?|factors?|divisors?|values?|intercepts?|members|elements|primes?)\b",
    re.IGNORECASE,
)


ROW = "¶"
r"""Stands for `\\\\` between the rows of a matrix."""


class Intervals(NamedTuple):
    """Intervals, with the name of what lies in them where it has one."""

    name: str
    intervals: list[str]


class AnswerList(NamedTuple):
    """Several answers in one."""

    opening: str
    """The bracket that it begins with, or nothing."""
    closing: str
    items: list[str]


def date_of(text: str) -> tuple[int, int, int] | None:
    """Return year (0 without), month and day of a date with a named month or with its year first; None for others."""
    for pattern in _DATES:
        if match := pattern.fullmatch(text.strip()):
            groups = match.groupdict()
            month = int(groups["number"]) if "number" in groups else _month_number(groups["month"])
            return int(groups.get("year") or 0), month, int(groups["day"])
    return None


def is_words(text: str) -> bool:
    """Return whether a plain text is words: letters, and what stands between words; a single letter counts."""
    return _WORDS.fullmatch(text.strip()) is not None


def is_code(text: str) -> bool:
    """Return whether a plain text is a date, time, version, address, telephone number or name with digits in it."""
    text = text.strip()
    if _DIFFERENCE.fullmatch(text) and re.search(r"[a-z]", text):
        return False  # 2x-1
    return any(pattern.fullmatch(text) for pattern in (_CODE, _CAPITALS)) or date_of(text) is not None


def same_code(truth: str, answer: str) -> bool:
    """Compare two codes as text, but for spaces and case; dates by what they name."""
    dates = date_of(truth), date_of(answer)
    if dates[0] is not None and dates[1] is not None:
        return dates[0] == dates[1]
    return _without_braces(truth) == _without_braces(answer)


def code_in(line: str) -> str | None:
    """Return the one word with digits in a line of prose; None where there is none, or more than one."""
    codes = _CODE_IN_PROSE.findall(line)
    return codes[0].rstrip(".:/-+") if len(codes) == 1 else None


def read_list(text: str, *, by_words: bool = False) -> AnswerList | None:
    """Split a plain text into the items of a list; None where it is none.

    `by_words` splits at "and", "or" and semicolons, too.
    """
    text = text.strip().removesuffix(".").strip()
    opening = next((mark for mark in ("\\{", "(", "[", "{") if text.startswith(mark)), "")
    closing = next((mark for mark in ("\\}", ")", "]", "}") if text.endswith(mark)), "")
    if opening and closing and _encloses(text, opening, closing):
        items = _split(text[len(opening) : -len(closing)])
        if len(items) > 1 or "{" in opening:
            return AnswerList(opening.strip("\\"), closing.strip("\\"), items)
        return None
    items = [part for item in _split(text) for part in (_AND_OR.split(item) if by_words else [item])]
    items = [_LEADING_AND.sub("", item) if by_words and position else item for position, item in enumerate(items)]
    items = [each for item in items for each in _both_signs(item)]
    return AnswerList("", "", [item.strip() for item in items if item.strip()]) if len(items) > 1 else None


def named_items(items: list[str]) -> tuple[list[str], list[str]]:
    """Return the names of items such as `x = 1`, empty where there is none, and the items without them."""
    names, values = [], []
    for item in items:
        match = _NAME.match(item)
        names.append(match[1] if match else "")
        values.append(item[match.end() :].strip() if match else item)
    if any(names[:1]) and not any(names[1:]):
        names = [""] * len(names) if len(names) > 1 else names  # x = 1, 2 or 3
    return names, values


def without_names(text: str) -> str:
    """Return a tuple without its names before it, as in `(x, y) = (2, -1)`, where they stand in alphabetical order."""
    match = _NAMED_TUPLE.match(text)
    if not match:
        return text
    names = [name.strip() for name in match["names"].split(",")]
    is_in_order = names == sorted(names) or any("\\" in name for name in names)
    return text[match.end() :].strip() if is_in_order else text


def without_member(text: str) -> str:
    r"""Return a set without the name of what is in it, as in `x \in [-2, 7]`."""
    return _MEMBER.sub("", text, count=1)


def matrix_of(text: str) -> list[list[str]] | None:
    """Return the rows of a text that is a matrix in round or square brackets, `ROW` between them; None for others."""
    match = _MATRIX.fullmatch(text.strip())
    if not match:
        return None
    rows = [row for row in match["rows"].split(ROW) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def intervals_of(text: str) -> Intervals | None:
    """Return the intervals that inequalities or a union are, `x < -2 or x ≥ 3`; None for anything else."""
    bare = _MEMBER.sub("", text.strip().rstrip("."), count=1)
    if _ALL_REAL.fullmatch(bare.strip()):
        return Intervals("", ["(-\\infty,\\infty)"])
    parts = re.split(r"\\cup\b|\\lor\b|,?\s*\bor\b", bare)
    read = [_interval(part.replace("<=", "≤").replace(">=", "≥").strip()) for part in parts]
    if None in read or (len(parts) == 1 and bare == text.strip().rstrip(".") and not _ORDER.search(text)):
        return None
    found = [each for each in read if each is not None]
    names = {name for name, _ in found if name}
    return Intervals(names.pop() if names else "", [each for _, each in found]) if len(names) <= 1 else None


def _interval(part: str) -> tuple[str, str] | None:
    if part[:1] in {"(", "["} and part[-1:] in {")", "]"} and len(_split(part[1:-1])) == 2:
        return "", part
    match = _INEQUALITY.fullmatch(part)
    if not match:
        return None
    lower, upper = "(-\\infty", "\\infty)"
    for bound, sign, is_before in ((match["a"], match["first"], True), (match["b"], match["second"], False)):
        if not sign:
            continue
        if not re.search(r"[0-9]|\\(?:pi|infty|sqrt)", bound):
            return None
        if (sign in "<≤") == is_before:
            lower = ("[" if sign in "≤≥" else "(") + bound.strip()
        else:
            upper = bound.strip() + ("]" if sign in "≤≥" else ")")
    return match["name"], f"{lower},{upper}"


def is_ordered(truth: AnswerList, prompt: str, *, are_numbers: bool, is_sorted: bool) -> bool:
    """Return whether the order of a list's items counts.

    In tuples and intervals it does, in sets it does not. Of a list without brackets the problem's words decide; else
    one of words is in order, and one of numbers where it is not sorted, as a set would be written.

    Args:
        truth: The true list.
        prompt: The problem's text.
        are_numbers: Whether its items are mathematics, not words.
        is_sorted: Whether its items are numbers that increase.
    """
    if truth.opening:
        return truth.opening != "{"
    if _IN_ORDER.search(prompt):
        return True
    if not are_numbers:
        return True
    return not is_sorted and not _ANY_ORDER.search(prompt)


def _without_braces(text: str) -> str:
    text = re.sub(r"^(?:version|v\.?)(?=[0-9])", "", re.sub(r"[\s{}]", "", fold(text)))
    return re.sub(r"(?<=[0-9])([ap])\.?m$", r"\1m", text)


def _month_number(name: str) -> int:
    return next(number for number, month in enumerate(_MONTHS, start=1) if month.startswith(name.lower()[:3]))


def _encloses(text: str, opening: str, closing: str) -> bool:
    """Tell whether a text's first bracket is closed by its last one; an interval may mix round and square ones."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and position >= len(opening) - 1 and position < len(text) - 1 and character in ")]}":
            return False
    curly = ("{" in opening) == ("}" in closing)
    return depth == 0 and curly


def _split(text: str) -> list[str]:
    """Split at commas and semicolons that stand in no bracket."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth == 0:
            items.append(text[start:position])
            start = position + 1
    return [item.strip() for item in (*items, text[start:])]


def _both_signs(item: str) -> list[str]:
    match = _PLUS_MINUS.fullmatch(item)
    if not match:
        return [item]
    before = match["before"]
    return [
        f"{before}{'+' if before.strip() and not before.strip().endswith('=') else ''}{match['after']}",
        f"{before}-{match['after']}",
    ]
