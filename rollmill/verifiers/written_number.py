r"""Parse numbers as people write them: `1,250`, `$1250`, `\frac{3}{4}`, `7.2 million`, `-7°C`, `12 + 24 = 36`.

Ambiguous texts are not numbers: `1.250,00`, `5K`, `5!`, `4 or 5`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from rollmill.verifiers.answer_tag import quote
from rollmill.verifiers.number_words import NUMBER_WORDS, read_words
from rollmill.verifiers.plain_text import DOLLAR, LONGEST, strip_markup
from rollmill.verifiers.units import is_prose, is_unit

_MOST_DIGITS = 400
_MOST_EXPONENT = 330
_MOST_BITS = 4096

_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]{0,2}(?:[ _'][0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
_DECIMAL = rf"(?:(?:(?:{_GROUPED})(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_TEN_TO = r"\s*[×xX*·]\s*10\s*\^\s*[{(]?\s*(?P<ten>[+-]?[0-9]{1,4})\s*[)}]?"
_PART = r"\s*(?:\{\s*([^{}]*?)\s*\}|([0-9]))"
_FRAC = re.compile(rf"\\frac{_PART}{_PART}")
_NEGATIVE_FRAC = re.compile(
    r"^\\frac\s*(?:\{\s*-\s*([^{}]*?)\s*\}\s*\{\s*([^-{}]*?)\s*\}|\{\s*([^-{}]*?)\s*\}\s*\{\s*-\s*([^{}]*?)\s*\})"
)
_CURRENCY = (
    rf"(?:(?:US|CA|AU|NZ|HK|[CA])\s*{DOLLAR}|[{DOLLAR}€£¥₹₩₽₺₦฿]|Rs\.?|"
    r"(?:USD|EUR|GBP|JPY|INR|CNY|RMB|CAD|AUD|CHF|NZD|SGD|HKD|KRW|MXN|BRL|SEK|NOK|DKK|PLN|ZAR)\b)"
)
_SIGN = r"(?:[+-]\s*|(?:minus|negative)\s+)"
_HEAD = re.compile(rf"(?P<sign>{_SIGN})?(?P<currency>{_CURRENCY})?\s*(?P<inner>{_SIGN})?", re.IGNORECASE)
_CORE = re.compile(
    rf"(?P<whole>[0-9]{{1,9}})\s*(?:\s|\band\b|&)\s*(?P<over>[0-9]{{1,9}})\s*/\s*(?P<under>[0-9]{{1,9}})(?![0-9.,/])"
    rf"|(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})(?![0-9/])"
    rf"|(?P<base>[0-9]{{1,6}})\s*\^\s*[{{(]?\s*(?P<power>[+-]?[0-9]{{1,4}})\s*[)}}]?(?![0-9.^])"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]{{1,4}})(?![0-9])|{_TEN_TO}(?![0-9.^]))?",
)
_HALF = re.compile(r"\s+and\s+(?:a|one)\s+half\b")
_PARTS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10,
}  # fmt: skip
_PART_WORD = re.compile(rf"[\s-]+(?P<part>{'|'.join(_PARTS)})(?P<many>s)?\b", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:%|percent\b|per\s?cent\b|pct\b|percentage\s+points?\b)", re.IGNORECASE)
_SCALE = re.compile(r"[\s-]*(hundred|thousand|million|billion|trillion|lakh|crore|dozen)s?\b", re.IGNORECASE)
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5,
    "crore": 10**7, "dozen": 12,
}  # fmt: skip
_LETTER = re.compile(r"(k|K|mn|M|m|bn|B|b|tn|T)(?![A-Za-z0-9^/])")
_LETTERS = {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12}
_AMBIGUOUS_LETTERS = frozenset({"K", "M", "B", "b", "T", "mn", "bn", "tn"})
"""Ambiguous after a number without a currency: kelvin or thousand, metres or millions."""
_LEAD = re.compile(
    r"(?:[=≈~⇒:→]+|"
    r"(?:so|thus|therefore|hence|then|and|is|are|it is|it's|it was|that is|that's|this is|equals|we get|we have|"
    r"approximately|approx\.?|about|around|roughly|exactly|just|only|a total of|(?:the |my )?(?:final |correct )?"
    r"answer(?: is| would be|:)?)(?![A-Za-z]),?)\s*:?\s*",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[A-Za-z][A-Za-z ']{0,40}:\s+(?=\S)")
_COMPARED = re.compile(r"[<>≤≥≠±|!?]|\\(?:in|to|rightarrow)\b")
_WORD_EQUALS = re.compile(
    r"(?<=[0-9%)])\s+(?:is|equals|makes|gives|leaves|is equal to)\s+(?=[-+¤€£]?\s*\.?[0-9])", re.IGNORECASE
)
_PERIODIC = re.compile(
    r"(?<![0-9.,])(?P<whole>[0-9]{0,15})\.(?P<fixed>[0-9]{0,20}?)"
    r"(?:\\(?:overline|bar)\s*\{?(?P<marked>[0-9]{1,20})\}?|\((?P<bracketed>[0-9]{1,20})\)"
    r"|(?P<repeated>[0-9]{1,8})(?P=repeated){2,12}(?:\.{3}|…))"
)
_WORD_SIGNS = (
    (re.compile(r"\s+plus\s+"), "+"), (re.compile(r"\s+minus\s+"), "-"), (re.compile(r"\s+times\s+"), "*"),
    (re.compile(r"\s+divided by\s+"), "/"), (re.compile(r"\b[Hh]alf of\s+"), "0.5*"),
)  # fmt: skip
SUM_OF_NAMES = re.compile(
    r"[A-Za-z](?:_\{?\w{1,3}\}?)?(?:\s*\+\s*[A-Za-z](?:_\{?\w{1,3}\}?)?){1,5}|[fghpqFGHPQ]'{0,2}\([-0-9./A-Za-z\\{}]{1,20}\)"
)
"""Left side of an equation whose digits are not values: x_1 + x_2, f(2)."""
_BOUNDS = re.compile(r"\\(sum|prod|lim|int)\s*(?:[_^]\s*(?:\{[^{}]{0,40}\}|\\?\w+)\s*){1,2}")
_UNCHECKED = re.compile(r"\\(?:sum|prod|lim|int|gcd|lcm|max|min|lfloor|lceil|det)\b|\b(?:gcd|lcm)\(")
_AFTER_WORDS = re.compile(r"[A-Za-z]{2,}\s+(?P<expression>[^A-Za-z]*[0-9][^A-Za-z]*)$")
_EQUALS = re.compile(r"==?|≈|⇒")


_FIRST_DIGIT = re.compile(r"\.?[0-9]|\\frac")
_SIGN_WORD = r"(?:\bnegative|(?:^|[:=]|\b(?:is|are|was|be|of|to|at|equals|about|approximately))\s*\bminus)\s+"
_HEAD_BEFORE = re.compile(rf"(?:(?<![\w)])[-+]\s*|(?P<word>{_SIGN_WORD}))?{_CURRENCY}?\s*(?:[-+])?$", re.IGNORECASE)
_MINUS_WORD = re.compile(r"\bminus\s+$", re.IGNORECASE)
_ANY_WORD = re.compile(r"[A-Za-z]+")


class WrittenNumber(NamedTuple):
    """A parsed number."""

    value: Fraction
    """Exact value; with a percent sign, the number before the sign."""
    percent: bool = False

    def __str__(self) -> str:
        return format_number(self.value) + ("%" if self.percent else "")


def format_number(value: Fraction) -> str:
    """Format a number as an integer or decimal if that is exact, else as a fraction."""
    if value.denominator == 1 and abs(value) < 10**18:
        return str(value.numerator)
    try:
        decimal = repr(float(value))
    except OverflowError:
        return str(value)
    return decimal if Fraction(decimal) == value else str(value)


def read_written(text: str) -> WrittenNumber:
    """Parse a text that is one number with its sign, currency, scale and unit. Raises `ValueError` with the text."""
    if len(text) <= LONGEST and "\n" not in text.strip():
        number = _read(strip_markup(text))
        if number is not None:
            return number
    raise ValueError(f"{quote(text)} is not a number")


def read_only_number(sentence: str) -> WrittenNumber | None:
    """Return the only number of a sentence, in digits or else in words; None if there is none, or more than one."""
    # The exponent of a unit (cm^2) is no second number.
    text = re.sub(r"(?<=[A-Za-z])\^\{?-?[1-3]\}?", "", strip_markup(sentence[:LONGEST]))
    if re.search(r"[<>≤≥≠±|]|\\in\b", text):
        return None  # a bound or an interval, not a value
    at = _FIRST_DIGIT.search(text)
    if at:
        head = _HEAD_BEFORE.search(text, 0, at.start())
        start = head.start() if head else at.start()
        if head and head["word"]:
            return _negative(_prefix_number(text[head.end("word") :].lstrip()))
        if _MINUS_WORD.search(text[:start]):
            return None  # a difference
        is_in_a_name = re.search(r"[\w.\\]$", text[:start]) is not None and not text[start].isspace()
        return None if is_in_a_name else _prefix_number(text[start:].lstrip())
    return _only_words(text)


def _negative(number: WrittenNumber | None) -> WrittenNumber | None:
    return None if number is None or number.value < 0 else WrittenNumber(-number.value, number.percent)


def _prefix_number(text: str) -> WrittenNumber | None:
    """Return the number at the beginning of a text; None if other digits or a part of it follow later in the text."""
    words = re.search(r"[ ,.;)][^0-9]*$", text)
    number = _read_quantity(text)
    if number is not None or words is None:
        return number
    for end in _quantity_ends(text, words.start()):
        if is_prose(text[end:]) and (number := _read_quantity(text[:end])) is not None:
            return number
    return None


def _quantity_ends(text: str, start: int) -> Iterator[int]:
    """Yield possible end positions of a number with its unit: before each of the first words after the last digit."""
    ends = [match.start() for match in re.finditer(r"(?=[ ,.;)])", text[: start + 80]) if match.start() >= start]
    yield from reversed(ends[:4])


def _only_words(text: str) -> WrittenNumber | None:
    numbers: list[int] = []
    at = 0
    while word := _ANY_WORD.search(text, at):
        read = read_words(text[word.start() :]) if word[0].lower() in NUMBER_WORDS else None
        # "one" is mostly a pronoun.
        if read is None or (read[0] == 1 and word[0].lower() == "one"):
            at = word.end()
            continue
        is_negative = re.search(rf"(?:{_SIGN_WORD})$", text[: word.start()], re.IGNORECASE)
        if not is_negative and _MINUS_WORD.search(text[: word.start()]):
            return None  # a difference
        numbers.append(-read[0] if is_negative else read[0])
        at = len(text) - len(read[1])
    return WrittenNumber(Fraction(numbers[0])) if len(numbers) == 1 else None


def _read(text: str) -> WrittenNumber | None:
    text = _PERIODIC.sub(_periodic_fraction, text)
    text = _NEGATIVE_FRAC.sub(r"-\\frac{\1\3}{\2\4}", _strip_lead(text))
    number = _read_quantity(text)
    if number is None and _EQUALS.search(text):
        return _read_equation(text)
    if number is None and (equation := _WORD_EQUALS.sub(" = ", text)) != text:
        return _read_equation(equation)
    if number is None and (label := _LABEL.match(text)) and is_unit(label[0].rstrip(": "), spaced=True):
        return _read(text[label.end() :])
    return number


def _strip_lead(text: str) -> str:
    """Remove introductions that do not change a number: "= ", "about ", "the answer is "."""
    for _ in range(6):
        match = _LEAD.match(text)
        if not match or match.end() == len(text):
            break
        text = text[match.end() :]
    return text.strip()


def _read_quantity(text: str) -> WrittenNumber | None:
    """Parse sign, currency, number, scale, percent sign and unit; None for other texts."""
    head = _HEAD.match(text)
    assert head is not None  # it also matches the empty text
    if head["sign"] and head["inner"]:
        return None  # -$-5 is ambiguous
    rest = text[head.end() :]
    read = _read_core(_rewrite_frac(rest)) or _read_number_words(rest)
    if read is None:
        return None
    value, rest = read
    if head["sign"] or head["inner"]:
        is_negative = not (head["sign"] or head["inner"]).startswith("+")
        value = -value if is_negative else value
    return _with_suffix(value, rest, has_currency=head["currency"] is not None)


def _rewrite_frac(text: str) -> str:
    r"""Rewrite `\frac{3}{4}` or `1\frac{3}{4}` at the beginning of a text as `3/4` or `1 3/4`."""
    match = _FRAC.search(text, 0, 200)
    if not match or not re.fullmatch(r"\s*[0-9]{0,9}\s*", text[: match.start()]):
        return text
    top, bottom = match[1] or match[2] or "", match[3] or match[4] or ""
    return f"{text[: match.start()]} {top}/{bottom}{text[match.end() :]}".lstrip()


def _read_core(text: str) -> tuple[Fraction, str] | None:
    """Parse the number at the beginning of a text and return it with the rest; None if there is none."""
    match = _CORE.match(text)
    if not match or len(match[0]) > _MOST_DIGITS:
        return None
    rest = text[match.end() :]
    if match["whole"]:
        over, under = int(match["over"]), int(match["under"])
        # 1 3/4 is a mixed number; 1 5/4 is not.
        return (int(match["whole"]) + Fraction(over, under), rest) if 0 < over < under else None
    if match["top"]:
        bottom = _decimal(match["bottom"])
        return (_decimal(match["top"]) / bottom, rest) if bottom else None
    if match["base"]:
        value = _power(Fraction(int(match["base"])), int(match["power"]))
        return None if value is None else (value, rest)
    exponent = int(match["exponent"] or match["ten"] or 0)
    if abs(exponent) > _MOST_EXPONENT:
        return None  # beyond the range of floats, and slow to compute exactly
    value = _decimal(match["decimal"]) * Fraction(10) ** exponent
    if half := _HALF.match(rest):
        return (value + Fraction(1, 2), rest[half.end() :]) if value.denominator == 1 else None
    return value, rest


def _read_number_words(text: str) -> tuple[Fraction, str] | None:
    """Parse the number in words at the beginning of a text and return it with the rest; None if there is none."""
    read = read_words(text)
    if read is None:
        return None
    if (part := _PART_WORD.match(read[1])) and 0 < read[0] <= 12 and (part["many"] is not None) == (read[0] > 1):
        return Fraction(read[0], _PARTS[part["part"].lower()]), read[1][part.end() :]
    return Fraction(read[0]), read[1]


def _decimal(text: str) -> Fraction:
    plain = re.sub(r"[ ,_']", "", text)
    return Fraction(f"0{plain}" if plain.startswith(".") else plain.rstrip("."))


def _power(base: Fraction, exponent: int) -> Fraction | None:
    """Return base**exponent; None if it is undefined or would have too many digits."""
    bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > _MOST_BITS or (base == 0 and exponent < 0):
        return None
    return base**exponent


def _with_suffix(value: Fraction, rest: str, *, has_currency: bool) -> WrittenNumber | None:
    """Apply the scale, percent sign and unit in `rest` to a value; None if anything else follows it."""
    letter = _LETTER.match(rest)
    # After a currency, $5M is a scale; 5M alone may be metres or a variable, so only k is read.
    if letter and (has_currency or letter[1] in _AMBIGUOUS_LETTERS | {"k"}):
        if not has_currency and letter[1] != "k":
            return None
        value, rest = value * _LETTERS[letter[1].lower()], rest[letter.end() :]
    while scale := _SCALE.match(rest):
        value, rest = value * _SCALES[scale[1].lower()], rest[scale.end() :]
    percent = _PERCENT.match(rest)
    if percent:
        rest = rest[percent.end() :]
    # "5 EUR": a currency may also follow the number.
    rest = re.sub(rf"\s*{_CURRENCY}", " ", rest, count=1) if re.match(rf"\s*{_CURRENCY}", rest) else rest
    if not is_unit(rest, spaced=percent is not None):
        return None
    return WrittenNumber(value, percent is not None)


def _read_equation(text: str) -> WrittenNumber | None:
    """Parse the side after the last equals sign; None if an earlier side contradicts it."""
    if _COMPARED.search(text) or ";" in text or re.search(r",\s", text):
        return None  # a comparison, or several equations
    *sides, last = (side.strip() for side in _EQUALS.split(_BOUNDS.sub(r"\\\1 ", text)))
    number = _read_quantity(last)
    if number is None and len(sides) == 1:  # 108 = 36 + 72
        first = _read_quantity(sides[0]) or read_only_number(sides[0])
        return first if first is not None and _has_value(last, first) else None
    if number is None or not all(_agrees(side, number) for side in sides):
        return None
    return number


def _agrees(side: str, number: WrittenNumber) -> bool:
    """Return whether one side of an equation is consistent with its result: it has that value, or is a name."""
    if _UNCHECKED.search(side) or SUM_OF_NAMES.fullmatch(side):
        return True
    expression = _expression_of(side)
    if not re.search(r"[0-9]", expression):
        return (
            is_unit(side, spaced=True)
            or re.fullmatch(r"[A-Za-z](?:_\{?\w{1,9}\}?)?(?:\([A-Za-z]\))?", side) is not None
        )
    value = evaluate(expression)
    if value is None:
        return (tail := _AFTER_WORDS.search(side)) is not None and _has_value(tail["expression"], number)
    results = {number.value, number.value / 100} if number.percent else {number.value}
    if "%" in expression and not number.percent:
        results.add(number.value / 100)
    if value in results:
        return True
    # Only a computed side may be rounded: 3.14 = 3 contradicts itself, 22/7 = 3.14 does not.
    is_computed = re.search(r"[0-9)%]\s*[-+*/×·÷^]", expression) is not None
    return is_computed and any(_is_rounded(value, result) for result in results)


def _has_value(expression: str, number: WrittenNumber) -> bool:
    """Return whether an expression of nothing but numbers and operators has the value of a number."""
    value = None if re.search(r"[A-Za-z\\]", expression) else evaluate(_expression_of(expression))
    return value is not None and value == number.value


def _is_rounded(value: Fraction, result: Fraction) -> bool:
    """Return whether a result is the rounded value of its expression: to an integer, or within 0.5 %."""
    if result.denominator == 1 and value.denominator != 1 and abs(value) > 1:
        return abs(value - result) <= Fraction(1, 2)
    return value.denominator not in {1, 2, 4, 5} and abs(value - result) <= abs(value) / 200


def _periodic_fraction(match: re.Match[str]) -> str:
    r"""Convert a repeating decimal, `0.1\overline{6}` or `0.333...`, to a fraction."""
    period = match["marked"] or match["bracketed"] or match["repeated"]
    fixed = match["fixed"]
    # x = a.bccc...: 10^(len(b) + len(c)) x - 10^len(b) x is an integer.
    top = int((match["whole"] or "0") + fixed + period) - int((match["whole"] or "0") + fixed)
    value = Fraction(top, 10 ** len(fixed) * (10 ** len(period) - 1))
    return f"{value.numerator}/{value.denominator}"


def _expression_of(side: str) -> str:
    """Return one side of an equation without names, units and currencies, so that it can be evaluated."""
    # The order matters: words become signs before all other letters are removed.
    for words, sign in _WORD_SIGNS:
        side = words.sub(sign, side)
    side = re.sub(r"[A-Za-z]_?\{?[0-9]{1,3}\}?", " ", _FRAC.sub(r"((\1\2)/(\3\4))", side))
    side = re.sub(r"(?<=[0-9)])\s*[xX]\s*(?=[0-9(])", "*", side)
    side = re.sub(r"(?<=[0-9)%])\s+of\s+(?=[0-9(¤€£])", "*", side)
    return re.sub(r"[^0-9+\-*/×·÷^().,%\s]+", " ", side).strip(" ,.")


_TOKEN = re.compile(rf"\s*(?:(?P<number>{_DECIMAL})|(?P<sign>[-+*/×·÷^()%]))")


def evaluate(expression: str) -> Fraction | None:
    """Evaluate sums, products and small powers of plain numbers exactly; None for other texts."""
    tokens: list[str] = []
    at = 0
    expression = expression.strip()
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if not match or len(tokens) > 200:
            return None
        tokens.append(match["number"] or match["sign"])
        at = match.end()
    stream = _Tokens(tokens)
    try:
        value = _sum(stream, 0)
    except (ValueError, ZeroDivisionError):
        return None
    return value if stream.next is None else None


class _Tokens:
    """A stream of tokens with a lookahead of one."""

    def __init__(self, tokens: list[str]) -> None:
        self._rest: Iterator[str] = iter(tokens)
        self.next: str | None = next(self._rest, None)

    def take(self) -> str:
        if self.next is None:
            raise ValueError("it ends too soon")
        token, self.next = self.next, next(self._rest, None)
        return token


def _sum(tokens: _Tokens, depth: int) -> Fraction:
    value = _product(tokens, depth)
    while tokens.next in {"+", "-"}:
        sign = tokens.take()
        term = _product(tokens, depth)
        value = value + term if sign == "+" else value - term
    return value


def _product(tokens: _Tokens, depth: int) -> Fraction:
    value = _factor(tokens, depth)
    while tokens.next in {"*", "×", "·", "/", "÷", "("}:
        sign = tokens.take() if tokens.next != "(" else "*"
        factor = _factor(tokens, depth)
        value = value / factor if sign in {"/", "÷"} else value * factor
        # Repeated multiplication must not grow without bound.
        if max(abs(value.numerator), value.denominator).bit_length() > _MOST_BITS:
            raise ValueError("it is too large")
    return value


def _factor(tokens: _Tokens, depth: int) -> Fraction:
    if depth > 30:
        raise ValueError("it is nested too deeply")
    first = tokens.take()
    if first in {"+", "-"}:
        value = _factor(tokens, depth + 1)
        return -value if first == "-" else value
    if first == "(":
        value = _sum(tokens, depth + 1)
        if tokens.take() != ")":
            raise ValueError("a bracket stays open")
    elif first[0].isdigit() or first[0] == ".":
        if len(first) > _MOST_DIGITS:
            raise ValueError("it is too long")
        value = _decimal(first)
    else:
        raise ValueError("a sign without a number")
    if tokens.next == "%":
        tokens.take()
        value /= 100
    if tokens.next == "^":
        tokens.take()
        exponent = _factor(tokens, depth + 1)
        powered = _power(value, int(exponent)) if exponent.denominator == 1 else None
        if powered is None:
            raise ValueError("it is too large")
        value = powered
    return value
