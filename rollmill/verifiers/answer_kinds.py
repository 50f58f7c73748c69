"""Recognize answers that are compared as text (words, dates, codes), and split lists into items."""

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
_BRACKETS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
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
r"""Replaces `\\\\` between the rows of a matrix, so that it survives the removal of markup."""


class Intervals(NamedTuple):
    """Intervals as LaTeX, and the name of the variable that lies in them, empty without one."""

    name: str
    intervals: list[str]


class AnswerList(NamedTuple):
    """A list of answers with its brackets."""

    opening: str
    """Opening bracket; empty without one."""
    closing: str
    items: list[str]


def date_of(text: str) -> tuple[int, int, int] | None:
    """Parse a date with a named month or with the year first into year (0 if missing), month and day; else None."""
    for pattern in _DATES:
        if match := pattern.fullmatch(text.strip()):
            groups = match.groupdict()
            month = int(groups["number"]) if "number" in groups else _month_number(groups["month"])
            return int(groups.get("year") or 0), month, int(groups["day"])
    return None


def is_words(text: str) -> bool:
    """Return whether a plain text consists of words: letters, spaces and punctuation; a single letter counts."""
    return _WORDS.fullmatch(text.strip()) is not None


def is_code(text: str) -> bool:
    """Return whether a plain text is a date, time, version, address, telephone number or name with digits."""
    text = text.strip()
    # A difference of terms looks like a code with hyphens.
    if _DIFFERENCE.fullmatch(text) and re.search(r"[a-z]", text):
        return False  # 2x-1
    return any(pattern.fullmatch(text) for pattern in (_CODE, _CAPITALS)) or date_of(text) is not None


def same_code(truth: str, answer: str) -> bool:
    """Return whether two codes are the same: dates by value, others as text without spaces and case."""
    dates = date_of(truth), date_of(answer)
    if dates[0] is not None and dates[1] is not None:
        return dates[0] == dates[1]
    return _without_braces(truth) == _without_braces(answer)


def code_in(line: str) -> str | None:
    """Return the only word with digits in a line of prose; None if there is none, or more than one."""
    codes = _CODE_IN_PROSE.findall(line)
    return codes[0].rstrip(".:/-+") if len(codes) == 1 else None


def read_list(text: str, *, by_words: bool = False) -> AnswerList | None:
    """Split a plain text into the items of a list; None if it is not a list.

    With `by_words` it is also split at "and", "or" and semicolons.
    """
    text = text.strip().removesuffix(".").strip()
    opening = next((mark for mark in ("\\{", "(", "[", "{") if text.startswith(mark)), "")
    closing = next((mark for mark in ("\\}", ")", "]", "}") if text.endswith(mark)), "")
    if opening and closing and _encloses(text, opening, closing):
        items = _split(text[len(opening) : -len(closing)])
        # (5) is a number in brackets, but {5} is a set of one.
        if len(items) > 1 or "{" in opening:
            return AnswerList(opening.strip("\\"), closing.strip("\\"), items)
        return None
    items = [part for item in _split(text) for part in (_AND_OR.split(item) if by_words else [item])]
    items = [_LEADING_AND.sub("", item) if by_words and position else item for position, item in enumerate(items)]
    items = [signed for item in items for signed in _expand_plus_minus(item)]
    return AnswerList("", "", [item.strip() for item in items if item.strip()]) if len(items) > 1 else None


def named_items(items: list[str]) -> tuple[list[str], list[str]]:
    """Split items such as `x = 1` into names (empty without one) and values."""
    names, values = [], []
    for item in items:
        match = _NAME.match(item)
        names.append(match[1] if match else "")
        values.append(item[match.end() :].strip() if match else item)
    if any(names[:1]) and not any(names[1:]):
        names = [""] * len(names) if len(names) > 1 else names  # x = 1, 2 or 3
    return names, values


def without_names(text: str) -> str:
    """Remove the names before a tuple, `(x, y) = (2, -1)`, if they are in alphabetical order.

    In another order, the values would have to be reordered: the text is unchanged.
    """
    match = _NAMED_TUPLE.match(text)
    if not match:
        return text
    names = [name.strip() for name in match["names"].split(",")]
    is_in_order = names == sorted(names) or any("\\" in name for name in names)
    return text[match.end() :].strip() if is_in_order else text


def without_member(text: str) -> str:
    r"""Remove the variable before a set, as in `x \in [-2, 7]`."""
    return _MEMBER.sub("", text, count=1)


def matrix_of(text: str) -> list[list[str]] | None:
    r"""Split a LaTeX matrix, with `ROW` in place of `\\\\`, into rows of cells; None for other texts."""
    match = _MATRIX.fullmatch(text.strip())
    if not match:
        return None
    rows = [row for row in match["rows"].split(ROW) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def intervals_of(text: str) -> Intervals | None:
    """Convert inequalities or a union, `x < -2 or x ≥ 3`, to intervals; None for other texts."""
    bare = _MEMBER.sub("", text.strip().rstrip("."), count=1)
    if _ALL_REAL.fullmatch(bare.strip()):
        return Intervals("", ["(-\\infty,\\infty)"])
    parts = re.split(r"\\cup\b|\\lor\b|,?\s*\bor\b", bare)
    read = [_interval(part.replace("<=", "≤").replace(">=", "≥").strip()) for part in parts]
    # A single interval without a variable or inequality may as well be a pair: the caller decides.
    if None in read or (len(parts) == 1 and bare == text.strip().rstrip(".") and not _ORDER.search(text)):
        return None
    intervals = [each for each in read if each is not None]
    names = {name for name, _ in intervals if name}
    return Intervals(names.pop() if names else "", [each for _, each in intervals]) if len(names) <= 1 else None


def _interval(part: str) -> tuple[str, str] | None:
    """Convert one inequality or interval to (variable, interval); None for other texts."""
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
        # a < x bounds x from below, and so does x > b.
        if (sign in "<≤") == is_before:
            lower = ("[" if sign in "≤≥" else "(") + bound.strip()
        else:
            upper = bound.strip() + ("]" if sign in "≤≥" else ")")
    return match["name"], f"{lower},{upper}"


def is_ordered(truth: AnswerList, prompt: str, *, are_numbers: bool, is_sorted: bool) -> bool:
    """Return whether the order of a list's items matters.

    It does in tuples and intervals, and does not in sets. For a list without brackets the problem's words decide.
    Without such words, it matters in a list of words, and in a list of numbers unless these are sorted, as one would
    write a set.

    Args:
        truth: The list of the ground truth.
        prompt: The problem's text.
        are_numbers: Whether its items are mathematics, not words.
        is_sorted: Whether its items are increasing numbers.
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
    """Return whether a text's last bracket closes its first; an interval may mix round and square brackets."""
    depth = 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if depth == 0 and position >= len(opening) - 1 and position < len(text) - 1 and character in ")]}":
            return False
    curly = ("{" in opening) == ("}" in closing)
    return depth == 0 and curly


def _split(text: str) -> list[str]:
    """Split at commas and semicolons outside of brackets."""
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


def _expand_plus_minus(item: str) -> list[str]:
    """Split `1 ± 2` into `1 +2` and `1 -2`; return other items unchanged."""
    match = _PLUS_MINUS.fullmatch(item)
    if not match:
        return [item]
    before = match["before"]
    return [
        f"{before}{'+' if before.strip() and not before.strip().endswith('=') else ''}{match['after']}",
        f"{before}-{match['after']}",
    ]
