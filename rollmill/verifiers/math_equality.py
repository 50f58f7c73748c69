"""Mathematical equality: words, dates and numbers as a person compares them, expressions as math-verify does."""

from __future__ import annotations

import functools
import logging
import re
from fractions import Fraction
from typing import Any

from rollmill.records import Problem, Verdict
from rollmill.verifiers import answer_kinds as kinds
from rollmill.verifiers.answer_tag import AnswerReading, answer_or_all, shown, tagged_answer
from rollmill.verifiers.conclusion import conclusion, last_sentence, without_check, without_struck
from rollmill.verifiers.ground_truth import truths_of
from rollmill.verifiers.numeric import read_stated
from rollmill.verifiers.plain_text import DOLLAR, LONGEST, fold, to_latex, undress
from rollmill.verifiers.registry import VerifierEntry
from rollmill.verifiers.stated_answer import bold_answer, last_line, stated_answer
from rollmill.verifiers.units import is_hedged, is_unit
from rollmill.verifiers.written_number import SUM_OF_NAMES, WrittenNumber, read_written

ENTRY = VerifierEntry("math", "MathVerifier", "mathematically equal, by math-verify")

_TOLERANCE = Fraction(101, 10**8)
"""Relative, of a decimal to what it rounds: 0.333333 is 1/3."""
_EXACT = 1e-12
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
"""In a side of an equation that is not computed: what it comes to is on the other side."""
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w{2})")
_GAP = re.compile(r"\s{3,}")
_ROW = re.compile(r"\\\\(?:\[[0-9.]+[a-z]+\])?")
_SAID = re.compile(r".*(?:\b(?:is|are|equals|was|be|by)\s*:?|[A-Za-z]\s?:)\s+(?P<said>\S.*)$", re.DOTALL)
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
_DEEPEST = 3


class MathVerifier:
    r"""Accepts an answer that equals the ground truth as mathematics: `\frac12`, 0.5 and 1/2 are the same.

    The answer stands between the `<answer>` tags; without them it is the last `\boxed{}`, what follows "the answer is",
    what is bold at the end, or the mathematics of the last sentence. Numbers are read with their dress and compared
    by value; a decimal of 6 digits equals what it rounds. Words, dates, versions and other codes are compared as text,
    lists item by item, in order where the ground truth has one; whatever else is mathematics by math-verify, numbers
    with a relative tolerance. The error is 0 or 1; `accept_error` changes nothing.
    Runs without a time limit of its own, and simplification can take for ever: meant for a worker.

    Args:
        answer: Which pair of tags counts.
    """

    name = "math"

    def __init__(self, *, answer: AnswerReading = "last") -> None:
        self._reading: AnswerReading = answer
        # For math-verify 0.9.0, which pyproject.toml pins: another release is another version here.
        self.version = "2" + "-first" * (answer == "first")

    def prepare(self) -> None:
        """Import math-verify, which takes one to two seconds."""
        _math_verify()

    def problem_fault(self, problem: Problem) -> str | None:
        """Return why there is no ground truth to compare with, or None; whether it parses is not checked here."""
        return None if any(truths_of(problem)) else "there is no answer"

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `ValueError`, naming the instance, without a ground truth that parses."""
        truths = [text for text in truths_of(problem) if text]
        if not truths or not any(map(_is_readable, truths)):
            fault = self.problem_fault(problem) or f"answer {shown(problem.answer or '')} is not mathematics"
            raise ValueError(f"{problem.instance_id}: {fault}")
        tagged = tagged_answer(completion, self._reading)
        text = answer_or_all(completion, self._reading) if tagged is None else tagged
        text = without_struck(text)
        answer = _Answer(text, is_all_answer=tagged is not None)
        said = answer.said()
        if said and (not answer.text or _is_beside_the_point(truths, answer)):
            answer = said
        if not text or not (answer.text or answer.number) or _is_beside_the_point(truths, answer):
            reason = f"no mathematics in {shown(text)}" if text else "the answer is empty"
            return self._verdict("unparseable", reason=reason)
        prompt = problem.prompt if isinstance(problem.prompt, str) else ""
        answers = [answer, said] if said else [answer]
        right = any(_is_right(truth, each, prompt) for truth in truths for each in answers)
        return self._verdict("ok", answer=answer.text or str(answer.number), right=right)

    def _verdict(self, status: Any, *, right: bool = False, **fields: Any) -> Verdict:
        if status == "ok":
            fields["distance"] = 0.0 if right else 1.0
        return Verdict(
            verifier=f"math@{self.version}", status=status, reward=1.0 if right else 0.0, success=right, **fields
        )


class _Answer:
    """What a completion gives as its answer: as text, and as the number that it states where it states one."""

    def __init__(self, text: str, *, is_all_answer: bool) -> None:
        self.line = last_line(text)
        try:
            self.number: WrittenNumber | None = read_stated(text, is_all_answer=is_all_answer) if text else None
        except ValueError:
            self.number = None
        self.text = _GAP.sub("  ", _candidate(text, is_all_answer=is_all_answer)[:LONGEST])

    def said(self) -> _Answer | None:
        """Return what a sentence says something to be, "The length is 2√13 cm"; None where it doubts it."""
        match = None if self.number else _SAID.fullmatch(self.text)
        if match is None or is_hedged(_MATH_SPAN.sub(" ", self.text)):
            return None
        return _Answer.of(match["said"])

    @classmethod
    def of(cls, text: str) -> _Answer:
        """Return a text that is all answer, as an item of a list is."""
        return cls(text, is_all_answer=True)


def _candidate(text: str, *, is_all_answer: bool) -> str:
    """Return the part of a text that is its answer; empty where there is none, or a hedge."""
    stated = stated_answer(text)
    if stated is not None:
        return stated
    if is_all_answer and len(text) <= LONGEST:
        return text
    text = without_check(text)
    bold = bold_answer(text)
    if bold is not None:
        return bold
    whole = last_line(text).replace("\\$", DOLLAR)
    line = conclusion(last_sentence(whole))
    if not re.search(r"[0-9$\\]", line):
        line = whole
    spans = [next(filter(None, match.groups())) for match in _MATH_SPAN.finditer(line)]
    if is_hedged(_MATH_SPAN.sub(" ", line)):
        return ""
    return spans[-1].strip() if len(spans) == 1 else _LEAD.sub("", line, count=1) if len(line) <= 80 else ""


def _is_readable(truth: str) -> bool:
    return _number(truth) is not None or _is_text(_undressed(truth)) or bool(_parse_bare(_undressed(truth)))


def _is_beside_the_point(truths: list[str], answer: _Answer) -> bool:
    """Tell whether an answer is words, or nothing that can be read, where mathematics is asked for."""
    given = _undressed(answer.text)
    if kinds.matrix_of(given) or kinds.intervals_of(given):
        return False
    if answer.number is not None or any(_is_text(plain) or _is_prose(plain) for plain in map(_undressed, truths)):
        return False
    given = _without_unit(given)
    return kinds.read_list(given, by_words=True) is None and (
        _is_prose(given) or not (_is_text(given) or _parse_bare(given))
    )


def _undressed(text: str) -> str:
    text = _FULL_STOP.sub("", text)
    plain = kinds.without_names(to_latex(undress(_ROW.sub(kinds.ROW, _GAP.sub("  ", text[:LONGEST])))))
    return plain if "matrix" in plain else plain.replace(kinds.ROW, " ")


def _is_text(plain: str) -> bool:
    return kinds.is_code(plain) or kinds.is_words(plain)


def _number(text: str) -> WrittenNumber | None:
    try:
        return read_written(text)
    except ValueError:
        return None


def _is_right(truth: str, answer: _Answer, prompt: str, depth: int = 0) -> bool:
    plain, given = _undressed(truth), _undressed(answer.text)
    name, _, value = given.partition("=")
    if value and "=" not in plain + value and _is_name(name.strip()):
        given = value.strip()
    if kinds.is_code(plain):
        return kinds.same_code(plain, given) or kinds.same_code(plain, kinds.code_in(answer.line) or given)
    if _have_other_names(plain, given):
        return False
    if (number := _number(truth)) is not None:
        if answer.number is not None:
            return _are_equal_numbers(number, answer.number)
        return _is_equal_expression(truth, answer.text, plain, given)
    if answer.text and fold(plain) == fold(given):
        return True
    if (matrix := kinds.matrix_of(plain)) is not None:
        return _is_same_matrix(matrix, kinds.matrix_of(given) or [], prompt, depth)
    if (right := _are_same_intervals(plain, given, prompt, depth)) is not None:
        return right
    plain, given = _without_unit(plain), _without_unit(given)
    if kinds.is_words(plain) and (len(plain) > 1 or not re.search(r"[\\^*+/=]", given)):
        expected = kinds.read_list(plain, by_words=True)
        return _are_same_words(plain, given) if expected is None else _is_right_list(expected, given, prompt, depth)
    expected = kinds.read_list(plain, by_words=True)
    if expected is not None and depth < _DEEPEST and "\\cup" not in plain:
        return _is_right_list(expected, given, prompt, depth)
    return _is_equal_expression(truth, answer.text, plain, given)


def _is_same_matrix(truth: list[list[str]], answer: list[list[str]], prompt: str, depth: int) -> bool:
    if [len(row) for row in truth] != [len(row) for row in answer]:
        return False
    return all(_are_same_items(row, other, prompt, depth) for row, other in zip(truth, answer, strict=True))


def _are_same_intervals(truth: str, answer: str, prompt: str, depth: int) -> bool | None:
    """Compare inequalities and unions as intervals; None where one of the two is neither that nor an interval."""
    expected, given = kinds.intervals_of(truth), kinds.intervals_of(answer)
    if expected is None and given is None:
        return None
    if expected is None and _is_plainly_interval(truth):
        expected = kinds.intervals_of(f"x \\in {truth}")
    given = given or kinds.intervals_of(f"x \\in {answer}")
    if expected is None or given is None:
        return (
            _is_same_set([truth], [bare], prompt, depth) if (bare := kinds.without_member(answer)) != answer else None
        )
    if expected.name and given.name and expected.name != given.name:
        return False
    same_length = len(expected.intervals) == len(given.intervals)
    return same_length and depth < _DEEPEST and _is_same_set(expected.intervals, given.intervals, prompt, depth)


def _is_plainly_interval(text: str) -> bool:
    """Tell an interval from a pair or a list in brackets: [2, 5] can be each of them."""
    return "infty" in text or "\\cup" in text or (text[:1] + text[-1:]) in {"(]", "[)"}


def _without_unit(plain: str) -> str:
    """Return mathematics without a unit behind it, as in `2√13 cm`."""
    match = _WITH_UNIT.fullmatch(plain)
    is_long = match is not None and all(len(word) > 2 or word in _UNITS for word in match["unit"].split())
    return match["value"] if match and is_long and is_unit(match["unit"], spaced=True) else plain


def _have_other_names(truth: str, answer: str) -> bool:
    """Tell whether two equations give values to different names: y = 3 is not x = 3."""
    names, _ = kinds.named_items([truth, answer])
    return all(names) and names[0] != names[1] and "," not in truth


def _are_same_words(truth: str, answer: str) -> bool:
    """Compare words as text, but for case, an article, and the brackets of a choice; "Yes, ..." says yes."""
    if _ARTICLE.sub("", fold(truth)) == _ARTICLE.sub("", fold(_LEAD.sub("", answer, count=1))):
        return True
    choices = _CHOICE.fullmatch(truth), _CHOICE.fullmatch(answer)
    if choices[0] and choices[1]:
        return choices[0][1].casefold() == choices[1][1].casefold()
    if truth[:1].isupper() and len(truth) > 1 and (subject := _SUBJECT.fullmatch(answer)):
        return fold(truth) == fold(subject["name"]) and not is_hedged(answer)
    if _YES_NO.fullmatch(truth) and (said := _YES_NO.match(answer)):
        return said[1].casefold() == truth.casefold()
    return False


def _are_equal_numbers(truth: WrittenNumber, answer: WrittenNumber) -> bool:
    values = {truth.value, truth.value / 100} if truth.percent and not answer.percent else {truth.value}
    if answer.value in values:
        return True
    return any(_rounds(answer.value, value) or _rounds(value, answer.value) for value in values)


def _rounds(decimal: Fraction, exact: Fraction) -> bool:
    """Tell whether a decimal of at least 6 digits is what a fraction without an end rounds to."""
    if _ends(exact) or not _ends(decimal) or decimal.denominator == 1:
        return False
    return abs(decimal - exact) <= abs(exact) * _TOLERANCE


def _ends(value: Fraction) -> bool:
    """Tell whether a number's decimals end."""
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return rest == 1


def _is_right_list(truth: kinds.AnswerList, given: str, prompt: str, depth: int) -> bool:
    answer = kinds.read_list(given, by_words=True)
    if answer is None or len(answer.items) != len(truth.items):
        return False
    if answer.opening and truth.opening and (answer.opening, answer.closing) != (truth.opening, truth.closing):
        return False
    if not answer.opening and truth.opening + truth.closing not in {"", "()", "{}"}:
        return False  # an interval without its brackets is none
    names, expected = kinds.named_items(truth.items)
    answer_names, items = kinds.named_items(answer.items)
    if len(set(names)) > 1 and any(answer_names):
        values = dict(zip(answer_names, items, strict=True))
        items = [values.get(name, "") for name in names]
        return len(values) == len(names) and _are_same_items(expected, items, prompt, depth)
    is_tuple = answer.opening in {"(", "["} and not truth.opening
    has_names = len(set(names)) > 1 or len(set(answer_names)) > 1
    if is_tuple or has_names or _counts_order(truth, expected, prompt):
        return _are_same_items(expected, items, prompt, depth)
    return _is_same_set(expected, items, prompt, depth)


def _are_same_items(truths: list[str], items: list[str], prompt: str, depth: int) -> bool:
    return all(_is_right_item(truth, item, prompt, depth) for truth, item in zip(truths, items, strict=True))


def _counts_order(truth: kinds.AnswerList, items: list[str], prompt: str) -> bool:
    numbers = [number.value for item in items if (number := _number(item))]
    is_sorted = len(numbers) == len(items) and numbers == sorted(numbers)
    are_numbers = not any(_is_text(item) for item in items)
    return kinds.is_ordered(truth, prompt, are_numbers=are_numbers, is_sorted=is_sorted)


def _is_same_set(truths: list[str], items: list[str], prompt: str, depth: int) -> bool:
    rest = list(items)
    for truth in truths:
        match = next((item for item in rest if _is_right_item(truth, item, prompt, depth)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def _is_right_item(truth: str, item: str, prompt: str, depth: int) -> bool:
    return _is_right(truth, _Answer.of(item), prompt, depth + 1)


def _is_equal_expression(truth: str, answer: str, plain: str, given: str) -> bool:
    """Compare by math-verify what is mathematics and nothing else."""
    if (
        not answer
        or _UNFINISHED.search(given)
        or _is_prose(given)
        or (_is_text(given) and len(given) > 1 and not _is_text(plain))
    ):
        return False
    if kinds.read_list(given) is not None and kinds.read_list(plain) is None and "\\cup" not in plain:
        return False
    if _BASE.search(given) and not _BASE.search(plain):
        return False
    if not _COMPARED.search(plain) and _COMPARED.search(given):
        return False
    if "=" in given and "=" not in plain:
        *sides, last = (side.strip() for side in given.split("="))
        are_checked = all(_is_name(side) or _UNCHECKED.search(side) or _is_same_value(side, last) for side in sides)
        return are_checked and _is_same_value(plain, last)
    if "=" in plain and "=" not in given:
        name, _, value = plain.partition("=")
        return _is_name(name.strip()) and "=" not in value and _is_same_value(value, given)
    return _is_same_value(plain, given)


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
    """Compare two numbers of sympy with a relative tolerance."""
    if first == second:
        return True
    if first.is_finite is False or second.is_finite is False:
        return False
    try:
        one, other = (_evaluated(each) for each in (first, second))
        return bool(abs(one - other) <= tolerance * max(abs(one), abs(other)))
    except (TypeError, ValueError, OverflowError):  # infinity, and what has no value
        return False


def _evaluated(expression: Any) -> Any:
    return expression.evalf(40)


def _agree_at_points(first: Any, second: Any) -> bool:
    """Tell whether two expressions in the same names have the same values: math-verify rounds small factors to 0."""
    symbols: set[Any] = getattr(first, "free_symbols", set())
    if not symbols or symbols != getattr(second, "free_symbols", set()) or not hasattr(first, "evalf"):
        return True
    ordered = sorted(symbols, key=str)
    for start, step in _POINTS:
        values = {symbol: start + step * index for index, symbol in enumerate(ordered)}
        try:
            one, other = complex(first.subs(values).evalf(20)), complex(second.subs(values).evalf(20))
        except (TypeError, ValueError, OverflowError, AttributeError):
            continue  # it has no value there, or is no expression: a relation, a set
        if abs(one - other) > 1e-6 * max(abs(one), abs(other)):
            return False
    return True


@functools.cache
def _math_verify() -> Any:
    # It warns once that its time limits are off, which is what is wanted here.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    import math_verify

    return math_verify


@functools.lru_cache(maxsize=256)
def _parse_bare(text: str) -> tuple[Any, ...]:
    r"""Parse text that is all answer; LaTeX without delimiters (`x^2+1`) is accepted.

    math-verify knows LaTeX only between delimiters, and takes the e of 1.5e3 there for Euler's number.
    """
    text = text.translate(_LATEX_OF)
    if text and not any(delimiter in text for delimiter in _DELIMITERS):
        scientific = _EXPONENT.fullmatch(text)
        latex = f"{scientific[1]} \\times 10^{{{scientific[2]}}}" if scientific else text
        return _parse(f"\\boxed{{{latex}}}") or _parse(text)
    return _parse(text)


def _parse(text: str) -> tuple[Any, ...]:
    return tuple(_math_verify().parse(text, parsing_timeout=None))
