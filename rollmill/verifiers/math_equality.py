"""Verify by mathematical equality: expressions by math-verify, numbers, words, dates and lists by own rules."""

from __future__ import annotations

import functools
import logging
import re
from fractions import Fraction
from typing import Any

from rollmill.records import Problem, Verdict
from rollmill.verifiers import answer_kinds as kinds
from rollmill.verifiers.answer_tag import AnswerReading, answer_or_all, quote, tagged_answer
from rollmill.verifiers.conclusion import conclusion, last_sentence, remove_check, remove_struck
from rollmill.verifiers.ground_truth import truths_of
from rollmill.verifiers.numeric import read_stated
from rollmill.verifiers.plain_text import DOLLAR, LONGEST, fold, strip_markup, to_latex
from rollmill.verifiers.registry import VerifierEntry
from rollmill.verifiers.stated_answer import bold_answer, last_line, stated_answer
from rollmill.verifiers.units import is_hedged, is_unit
from rollmill.verifiers.written_number import SUM_OF_NAMES, WrittenNumber, read_written

ENTRY = VerifierEntry("math", "MathVerifier", "mathematically equal, by math-verify")

_TOLERANCE = Fraction(101, 10**8)
"""Relative tolerance between a rounded decimal and the exact value: 0.333333 equals 1/3."""
_EXACT = 1e-12
"""Relative tolerance between values without decimals."""
_DELIMITERS = ("$", "\\boxed", "\\(", "\\[")
_EXPONENT = re.compile(r"([+-]?[0-9.]+)[eE]([+-]?[0-9]+)")
_MATH_SPAN = re.compile(r"\$\$([^$]+)\$\$|\$(?=\S)([^$]*[^$\s])\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence),?\s+)?"
    r"(?:(?:the |my )?(?:final )?answer(?: is|:)|it is|it's|this is|that is|it was)\s*:?\s+",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\(?([A-Za-z])[).:]?")
_YES_NO = re.compile(r"(yes|no|true|false)\b(?=[,.;:!]|\s*$)", re.IGNORECASE)
_PROSE_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FUNCTIONS = frozenset(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp sqrt max min gcd lcm mod pi det dx dy dt frac
    """.split()  # noqa: SIM905
)
_WITH_UNIT = re.compile(
    r"(?P<value>(?=.*[0-9\\]).*(?:[0-9)\]}]|\\pi))(?:(?<=\})\s*|\s+)"
    r"(?P<unit>[A-Za-z]+(?: [A-Za-z]+){0,3})\.?(?:\^\{?[23]\}?)?\.?",
    re.DOTALL,
)
_UNITS = frozenset({"cm", "km", "mm", "m", "ft", "in", "mi", "yd", "kg", "g", "sq", "s", "hr"})
_FULL_STOP = re.compile(r"(?<=[^\s.])\.\s*$")
_UNCHECKED = re.compile(
    r"°|\\(?:sin|cos|tan|cot|sec|csc|arc\w+|lim|int|iint|sum|prod|gcd|lcm|max|min|det|vec|overline|angle|bmod|pmod|"
    r"lfloor|lceil)\b|\|"
)
"""Notation in a side of an equation that is not evaluated; its value is on the other side."""
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w{2})")
_GAP = re.compile(r"\s{3,}")
_ROW = re.compile(r"\\\\(?:\[[0-9.]+[a-z]+\])?")
_ASSERTION = re.compile(r".*(?:\b(?:is|are|equals|was|be|by)\s*:?|[A-Za-z]\s?:)\s+(?P<answer>\S.*)$", re.DOTALL)
_SUBJECT = re.compile(
    r"(?:(?:So|Thus|Therefore|Hence|so|thus|therefore|hence),?\s+)?(?P<name>[A-Z][a-z]+)\s+"
    r"(?:has|had|is|was|wins|won|runs|ran|gets|got)\s+the\b[^A-Z]*"
)
_UNFINISHED = re.compile(r"[-+*/^=·×÷]\s*$|^\s*[*/^=·×÷]|\\cdot\s*$|¤.*¤", re.DOTALL)
_COMPARED = re.compile(r"[<>≤≥≠]|\\(?:l|g)(?:eq?|t)\b|\\neq?\b")
_LATEX_OF = str.maketrans(
    {"·": r"\cdot ", "×": r"\times ", "÷": r"\div ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "−": "-"}
)
_BASE = re.compile(r"[0-9]\s*_\s*\{?\s*[0-9]")
_POINTS = ((0.7310585786, 1.3), (1.9184023, 0.61), (2.41803, 2.2))
"""Points at which expressions are compared: value of the first variable, and step from each to the next."""
_DEEPEST = 3
"""Deepest nesting of lists that is compared item by item."""


class MathVerifier:
    r"""Accepts an answer that equals the ground truth as mathematics: `\frac12`, 0.5 and 1/2 are the same.

    The answer is between the `<answer>` tags; without them it is the last `\boxed{}`, the text after "the answer is",
    bold text at the end, or the mathematics of the last sentence. Numbers are read with units, currencies and scales
    and compared by value; a decimal of 6 digits equals the value that it rounds. Words, dates, versions and other codes
    are compared as text, lists item by item, in order if the order matters in the ground truth. Other mathematics is
    compared by math-verify, numbers with a relative tolerance. The error is 0 or 1; `accept_error` has no effect.
    Simplification may not terminate and has no time limit here, so the verifier must run in a worker.

    Args:
        answer: The pair of tags that is judged.
    """

    name = "math"

    def __init__(self, *, answer: AnswerReading = "last") -> None:
        self._reading: AnswerReading = answer
        # For math-verify 0.9.0, which pyproject.toml pins: raise it with another release.
        self.version = "2-first" if answer == "first" else "2"

    def prepare(self) -> None:
        """Import math-verify, which takes one to two seconds."""
        _math_verify()

    def problem_fault(self, problem: Problem) -> str | None:
        """Return that there is no ground truth, or None; parsing it would be too slow here."""
        return None if any(truths_of(problem)) else "there is no answer"

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `ValueError`, naming the instance, if no ground truth can be parsed."""
        truths = [text for text in truths_of(problem) if text]
        if not truths or not any(map(_is_readable, truths)):
            fault = self.problem_fault(problem) or f"answer {quote(problem.answer or '')} is not mathematics"
            raise ValueError(f"{problem.instance_id}: {fault}")
        tagged = tagged_answer(completion, self._reading)
        text = answer_or_all(completion, self._reading) if tagged is None else tagged
        text = remove_struck(text)
        answer = _Answer(text, is_all_answer=tagged is not None)
        assertion = answer.assertion()
        # "The length is 2√13 cm": the sentence itself is no mathematics, but its end is.
        if assertion and (not answer.text or _lacks_mathematics(truths, answer)):
            answer = assertion
        if not text or not (answer.text or answer.number) or _lacks_mathematics(truths, answer):
            reason = f"no mathematics in {quote(text)}" if text else "the answer is empty"
            return self._verdict("unparseable", reason=reason)
        prompt = problem.prompt if isinstance(problem.prompt, str) else ""
        answers = [answer, assertion] if assertion else [answer]
        right = any(_is_right(truth, each, prompt) for truth in truths for each in answers)
        return self._verdict("ok", answer=answer.text or str(answer.number), right=right)

    def _verdict(self, status: Any, *, right: bool = False, **fields: Any) -> Verdict:
        if status == "ok":
            fields["distance"] = 0.0 if right else 1.0
        return Verdict(
            verifier=f"math@{self.version}", status=status, reward=1.0 if right else 0.0, success=right, **fields
        )


class _Answer:
    """The answer of a completion: its text, and its number if it states one."""

    def __init__(self, text: str, *, is_all_answer: bool) -> None:
        self.line = last_line(text)
        try:
            self.number: WrittenNumber | None = read_stated(text, is_all_answer=is_all_answer) if text else None
        except ValueError:
            self.number = None
        self.text = _GAP.sub("  ", _candidate(text, is_all_answer=is_all_answer)[:LONGEST])

    def assertion(self) -> _Answer | None:
        """Return the right side of an assertion, "The length is 2√13 cm", as an answer; None if there is none."""
        match = None if self.number else _ASSERTION.fullmatch(self.text)
        if match is None or is_hedged(_MATH_SPAN.sub(" ", self.text)):
            return None
        return _Answer.of(match["answer"])

    @classmethod
    def of(cls, text: str) -> _Answer:
        """Return the answer of a text that is nothing but an answer, such as an item of a list."""
        return cls(text, is_all_answer=True)


def _candidate(text: str, *, is_all_answer: bool) -> str:
    """Return the part of a text that is its answer; empty if there is none, or it hedges."""
    stated = stated_answer(text)
    if stated is not None:
        return stated
    if is_all_answer and len(text) <= LONGEST:
        return text
    text = remove_check(text)
    bold = bold_answer(text)
    if bold is not None:
        return bold
    full_line = last_line(text).replace("\\$", DOLLAR)
    line = conclusion(last_sentence(full_line))
    if not re.search(r"[0-9$\\]", line):
        line = full_line
    spans = [next(filter(None, match.groups())) for match in _MATH_SPAN.finditer(line)]
    if is_hedged(_MATH_SPAN.sub(" ", line)):
        return ""
    if len(spans) == 1:
        return str(spans[0]).strip()
    return _LEAD.sub("", line, count=1) if len(line) <= 80 else ""


def _is_readable(truth: str) -> bool:
    return _try_read(truth) is not None or _is_text(_to_plain(truth)) or bool(_parse_bare(_to_plain(truth)))


def _lacks_mathematics(truths: list[str], answer: _Answer) -> bool:
    """Return whether an answer is prose or cannot be parsed, although the ground truth is mathematics."""
    text = _to_plain(answer.text)
    if kinds.matrix_of(text) or kinds.intervals_of(text):
        return False  # compared by own rules, whether or not math-verify can parse them
    if answer.number is not None or any(_is_text(plain) or _is_prose(plain) for plain in map(_to_plain, truths)):
        return False
    text = _without_unit(text)
    return kinds.read_list(text, by_words=True) is None and (
        _is_prose(text) or not (_is_text(text) or _parse_bare(text))
    )


def _to_plain(text: str) -> str:
    """Return a text without markup, as LaTeX, without names before a tuple."""
    text = _FULL_STOP.sub("", text)
    plain = kinds.without_names(to_latex(strip_markup(_ROW.sub(kinds.ROW, _GAP.sub("  ", text[:LONGEST])))))
    return plain if "matrix" in plain else plain.replace(kinds.ROW, " ")


def _is_text(plain: str) -> bool:
    return kinds.is_code(plain) or kinds.is_words(plain)


def _try_read(text: str) -> WrittenNumber | None:
    try:
        return read_written(text)
    except ValueError:
        return None


def _is_right(truth: str, answer: _Answer, prompt: str, depth: int = 0) -> bool:
    """Return whether an answer equals a ground truth, by the first kind of comparison that fits the ground truth.

    Args:
        truth: Text of the ground truth.
        answer: The answer.
        prompt: The problem's text, which may tell whether the order of a list matters.
        depth: Number of lists around the two.
    """
    truth_text, answer_text = _to_plain(truth), _to_plain(answer.text)
    # A bare value for x = 5: the name is dropped, unless the ground truth has one to compare it with.
    name, _, value = answer_text.partition("=")
    if value and "=" not in truth_text + value and _is_name(name.strip()):
        answer_text = value.strip()
    # Codes before numbers: 1.10 as a version is not 1.1, and 10:30 is not a ratio.
    if kinds.is_code(truth_text):
        return kinds.same_code(truth_text, answer_text) or kinds.same_code(
            truth_text, kinds.code_in(answer.line) or answer_text
        )
    if _have_other_names(truth_text, answer_text):
        return False
    if (number := _try_read(truth)) is not None:
        if answer.number is not None:
            return _are_equal_numbers(number, answer.number)
        return _is_equal_expression(answer.text, truth_text, answer_text)
    if answer.text and fold(truth_text) == fold(answer_text):
        return True
    if (matrix := kinds.matrix_of(truth_text)) is not None:
        return _is_same_matrix(matrix, kinds.matrix_of(answer_text) or [], prompt, depth)
    if (is_same := _are_same_intervals(truth_text, answer_text, prompt, depth)) is not None:
        return is_same
    truth_text, answer_text = _without_unit(truth_text), _without_unit(answer_text)
    if kinds.is_words(truth_text) and (len(truth_text) > 1 or not re.search(r"[\\^*+/=]", answer_text)):
        expected = kinds.read_list(truth_text, by_words=True)
        return (
            _are_same_words(truth_text, answer_text)
            if expected is None
            else _is_right_list(expected, answer_text, prompt, depth)
        )
    # A union is a set of intervals, whose commas separate bounds.
    expected = kinds.read_list(truth_text, by_words=True)
    if expected is not None and depth < _DEEPEST and "\\cup" not in truth_text:
        return _is_right_list(expected, answer_text, prompt, depth)
    return _is_equal_expression(answer.text, truth_text, answer_text)


def _is_same_matrix(truth: list[list[str]], answer: list[list[str]], prompt: str, depth: int) -> bool:
    """Compare two matrices cell by cell.

    Args:
        truth: Rows of cells of the ground truth.
        answer: Rows of cells of the answer.
        prompt: The problem's text.
        depth: Number of lists around the two.
    """
    if [len(row) for row in truth] != [len(row) for row in answer]:
        return False
    return all(_are_same_items(row, other, prompt, depth) for row, other in zip(truth, answer, strict=True))


def _are_same_intervals(truth: str, answer: str, prompt: str, depth: int) -> bool | None:
    """Compare inequalities and unions as intervals; None if neither of the two is one.

    Args:
        truth: Plain text of the ground truth.
        answer: Plain text of the answer.
        prompt: The problem's text.
        depth: Number of lists around the two.
    """
    expected, actual = kinds.intervals_of(truth), kinds.intervals_of(answer)
    if expected is None and actual is None:
        return None
    if expected is None and _is_unambiguous_interval(truth):
        expected = kinds.intervals_of(f"x \\in {truth}")
    actual = actual or kinds.intervals_of(f"x \\in {answer}")
    if expected is None or actual is None:
        return (
            _is_same_set([truth], [bare], prompt, depth) if (bare := kinds.without_member(answer)) != answer else None
        )
    if expected.name and actual.name and expected.name != actual.name:
        return False
    # The order of intervals in a union does not matter.
    same_length = len(expected.intervals) == len(actual.intervals)
    return same_length and depth < _DEEPEST and _is_same_set(expected.intervals, actual.intervals, prompt, depth)


def _is_unambiguous_interval(text: str) -> bool:
    """Return whether a text in brackets can only be an interval; [2, 5] may also be a pair or a list."""
    return "infty" in text or "\\cup" in text or (text[:1] + text[-1:]) in {"(]", "[)"}


def _without_unit(plain: str) -> str:
    """Remove a unit after mathematics, as in `2√13 cm`."""
    match = _WITH_UNIT.fullmatch(plain)
    is_long = match is not None and all(len(word) > 2 or word in _UNITS for word in match["unit"].split())
    return match["value"] if match and is_long and is_unit(match["unit"], spaced=True) else plain


def _have_other_names(truth: str, answer: str) -> bool:
    """Return whether two equations assign values to different names: y = 3 is not x = 3."""
    names, _ = kinds.named_items([truth, answer])
    return all(names) and names[0] != names[1] and "," not in truth


def _are_same_words(truth: str, answer: str) -> bool:
    """Compare words as text without case, article, and the brackets of a choice; "Yes, ..." equals "yes"."""
    if _ARTICLE.sub("", fold(truth)) == _ARTICLE.sub("", fold(_LEAD.sub("", answer, count=1))):
        return True
    choices = _CHOICE.fullmatch(truth), _CHOICE.fullmatch(answer)
    if choices[0] and choices[1]:
        return choices[0][1].casefold() == choices[1][1].casefold()
    if truth[:1].isupper() and len(truth) > 1 and (subject := _SUBJECT.fullmatch(answer)):
        return fold(truth) == fold(subject["name"]) and not is_hedged(answer)
    if _YES_NO.fullmatch(truth) and (word := _YES_NO.match(answer)):
        return word[1].casefold() == truth.casefold()
    return False


def _are_equal_numbers(truth: WrittenNumber, answer: WrittenNumber) -> bool:
    # For a true 25%, both 25 and 0.25 are right.
    values = {truth.value, truth.value / 100} if truth.percent and not answer.percent else {truth.value}
    if answer.value in values:
        return True
    # Either side may be the rounded one.
    return any(_is_rounded(answer.value, value) or _is_rounded(value, answer.value) for value in values)


def _is_rounded(decimal: Fraction, exact: Fraction) -> bool:
    """Return whether a decimal is a fraction with an infinite expansion, rounded to at least 6 digits."""
    # A finite decimal is exact: 0.5 is not a rounded 0.4999999.
    if _is_finite_decimal(exact) or not _is_finite_decimal(decimal) or decimal.denominator == 1:
        return False
    return abs(decimal - exact) <= abs(exact) * _TOLERANCE


def _is_finite_decimal(value: Fraction) -> bool:
    """Return whether a number has a finite decimal expansion: its denominator has no factors but 2 and 5."""
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return rest == 1


def _is_right_list(truth: kinds.AnswerList, text: str, prompt: str, depth: int) -> bool:
    """Compare a list with the ground truth: brackets, names, then items, in order if that matters.

    Args:
        truth: List of the ground truth.
        text: Plain text of the answer.
        prompt: The problem's text.
        depth: Number of lists around the two.
    """
    answer = kinds.read_list(text, by_words=True)
    if answer is None or len(answer.items) != len(truth.items):
        return False
    if answer.opening and truth.opening and (answer.opening, answer.closing) != (truth.opening, truth.closing):
        return False
    if not answer.opening and truth.opening + truth.closing not in {"", "()", "{}"}:
        return False  # without its brackets, an interval is just two numbers
    # x = 1, y = 2 is compared by name, whatever the order.
    names, expected = kinds.named_items(truth.items)
    answer_names, items = kinds.named_items(answer.items)
    if len(set(names)) > 1 and any(answer_names):
        values = dict(zip(answer_names, items, strict=True))
        items = [values.get(name, "") for name in names]
        return len(values) == len(names) and _are_same_items(expected, items, prompt, depth)
    is_tuple = answer.opening in {"(", "["} and not truth.opening
    has_names = len(set(names)) > 1 or len(set(answer_names)) > 1
    if is_tuple or has_names or _is_order_relevant(truth, expected, prompt):
        return _are_same_items(expected, items, prompt, depth)
    return _is_same_set(expected, items, prompt, depth)


def _are_same_items(truths: list[str], items: list[str], prompt: str, depth: int) -> bool:
    """Compare items in order.

    Args:
        truths: Items of the ground truth.
        items: As many items of the answer.
        prompt: The problem's text.
        depth: Number of lists around the items' list.
    """
    return all(_is_right_item(truth, item, prompt, depth) for truth, item in zip(truths, items, strict=True))


def _is_order_relevant(truth: kinds.AnswerList, items: list[str], prompt: str) -> bool:
    numbers = [number.value for item in items if (number := _try_read(item))]
    is_sorted = len(numbers) == len(items) and numbers == sorted(numbers)
    are_numbers = not any(_is_text(item) for item in items)
    return kinds.is_ordered(truth, prompt, are_numbers=are_numbers, is_sorted=is_sorted)


def _is_same_set(truths: list[str], items: list[str], prompt: str, depth: int) -> bool:
    """Compare items in any order.

    Args:
        truths: Items of the ground truth.
        items: Items of the answer.
        prompt: The problem's text.
        depth: Number of lists around the items' list.
    """
    # Greedy matching suffices: items that equal the same item practically always equal each other.
    rest = list(items)
    for truth in truths:
        match = next((item for item in rest if _is_right_item(truth, item, prompt, depth)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def _is_right_item(truth: str, item: str, prompt: str, depth: int) -> bool:
    """Compare one item of a list.

    Args:
        truth: Item of the ground truth.
        item: Item of the answer.
        prompt: The problem's text.
        depth: Number of lists around the item's list.
    """
    return _is_right(truth, _Answer.of(item), prompt, depth + 1)


def _is_equal_expression(answer: str, truth_text: str, answer_text: str) -> bool:
    """Compare two texts by math-verify, if the answer is nothing but mathematics of the same form.

    math-verify ignores prose and picks one of several expressions, so these are refused before. `answer` is the
    original text, `truth_text` and `answer_text` are plain.
    """
    if (
        not answer
        or _UNFINISHED.search(answer_text)
        or _is_prose(answer_text)
        or (_is_text(answer_text) and len(answer_text) > 1 and not _is_text(truth_text))
    ):
        return False
    if kinds.read_list(answer_text) is not None and kinds.read_list(truth_text) is None and "\\cup" not in truth_text:
        return False
    if _BASE.search(answer_text) and not _BASE.search(truth_text):
        return False  # 101_2 is not 101
    if not _COMPARED.search(truth_text) and _COMPARED.search(answer_text):
        return False
    # In 2x + 3 = 7 + 3 = 10 the last side is the answer; the other sides must not contradict it.
    if "=" in answer_text and "=" not in truth_text:
        *sides, last = (side.strip() for side in answer_text.split("="))
        are_checked = all(_is_name(side) or _UNCHECKED.search(side) or _is_same_value(side, last) for side in sides)
        return are_checked and _is_same_value(truth_text, last)
    if "=" in truth_text and "=" not in answer_text:
        name, _, value = truth_text.partition("=")
        return _is_name(name.strip()) and "=" not in value and _is_same_value(value, answer_text)
    return _is_same_value(truth_text, answer_text)


def _is_prose(plain: str) -> bool:
    words = {word.lower() for word in _PROSE_WORD.findall(re.sub(r"\\[A-Za-z]+", " ", plain))}
    return any(len(word) > 2 or word in {"or", "is", "to"} for word in words - _FUNCTIONS)


def _is_name(side: str) -> bool:
    return (
        SUM_OF_NAMES.fullmatch(side) is not None
        or re.fullmatch(r"\\?[A-Za-z]{1,10}(?:_\{?\w{1,9}\}?)?'?(?:\(\s*\\?[A-Za-z]{1,8}(?:,\s*[A-Za-z])?\s*\))?", side)
        is not None
    )


def _is_same_value(truth: str, answer: str) -> bool:
    expected, parsed = (_parse_bare(text.replace(DOLLAR, "")) for text in (truth, answer))
    if not expected or not parsed:
        return False
    first, second = expected[0], parsed[0]
    if _is_number(first) and _is_number(second):
        tolerance = float(_TOLERANCE) if "." in truth + answer else _EXACT
        return _are_close(first, second, tolerance)
    if not _math_verify().verify(list(expected), list(parsed), timeout_seconds=None):
        return False
    return _agree_at_points(first, second)


def _is_number(expression: Any) -> bool:
    return getattr(expression, "is_number", None) is True and not getattr(expression, "free_symbols", True)


def _are_close(first: Any, second: Any, tolerance: float) -> bool:
    """Return whether two sympy numbers are equal within a relative tolerance."""
    if first == second:
        return True
    if first.is_finite is False or second.is_finite is False:
        return False
    try:
        left, right = (_evaluate(each) for each in (first, second))
        return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
    except (TypeError, ValueError, OverflowError):  # infinity, and what has no value
        return False


def _evaluate(expression: Any) -> Any:
    return expression.evalf(40)


def _agree_at_points(first: Any, second: Any) -> bool:
    """Return whether two expressions in the same variables agree at sample points.

    A second check, since math-verify rounds small factors to 0.
    """
    # Without common variables there is nothing to evaluate: math-verify's verdict stands.
    symbols: set[Any] = getattr(first, "free_symbols", set())
    if not symbols or symbols != getattr(second, "free_symbols", set()) or not hasattr(first, "evalf"):
        return True
    ordered = sorted(symbols, key=str)
    for start, step in _POINTS:
        values = {symbol: start + step * index for index, symbol in enumerate(ordered)}
        try:
            left, right = complex(first.subs(values).evalf(20)), complex(second.subs(values).evalf(20))
        except (TypeError, ValueError, OverflowError, AttributeError):
            continue  # undefined at this point, or not an expression but a relation or a set
        if abs(left - right) > 1e-6 * max(abs(left), abs(right)):
            return False
    return True


@functools.cache
def _math_verify() -> Any:
    # It warns once that its time limits are off, which is intended here: the worker has a limit.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    import math_verify

    return math_verify


@functools.lru_cache(maxsize=256)
def _parse_bare(text: str) -> tuple[Any, ...]:
    r"""Parse a text that is nothing but an answer, such as LaTeX without delimiters (`x^2+1`).

    math-verify recognizes LaTeX only between delimiters, where it reads the e of 1.5e3 as Euler's number.
    """
    text = text.translate(_LATEX_OF)
    if text and not any(delimiter in text for delimiter in _DELIMITERS):
        scientific = _EXPONENT.fullmatch(text)
        latex = f"{scientific[1]} \\times 10^{{{scientific[2]}}}" if scientific else text
        return _parse(f"\\boxed{{{latex}}}") or _parse(text)
    return _parse(text)


def _parse(text: str) -> tuple[Any, ...]:
    return tuple(_math_verify().parse(text, parsing_timeout=None))
