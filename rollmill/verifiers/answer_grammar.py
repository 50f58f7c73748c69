"""Grammars for answers that are later evaluated as code: literals, and expressions of bounded size.

A recursive descent parser checks a text without evaluating it. The grammars are subsets of Python, so that `eval` and
sympy's `parse_expr` read a text as this parser does: no attributes, subscripts, keywords, prefixed or escaped strings,
and only ASCII (Python normalizes other letters in names).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rollmill.verifiers.answer_tag import quote

_DEEPEST = 40  # Python's own parser takes 200 brackets, and sympy adds one of its own to each number
_LONGEST_NUMBER = 300
_MOST_BITS = 4096.0
"""Bound on the size of a numerator or denominator: evaluation is fast below it."""
_MOST_DEGREE = 200.0
"""Bound on the degree in all variables together: sympy expands powers of sums."""
_END = "the end"

# Constructors with which sympy prints numbers, with their number of integer arguments; then functions of two arguments.
_NUMBERS_BY_NAME = {"Integer": 1, "Rational": 2, "S": 1}
_POWERS = frozenset({"Pow", "pow", "root"})
_LOGARITHMS = frozenset({"ln", "log"})

_DIGITS = r"[0-9](?:_?[0-9])*"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+)
    |(?P<number>(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?[0-9]{{1,3}}(?![0-9]))?)
    |(?P<name>[A-Za-z][A-Za-z0-9_]*)
    |(?P<text>'[\x20-\x26\x28-\x5b\x5d-\x7e]*'|"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
    |(?P<sign>\*\*|//|[-+*/%^!(),\[\]])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Expressions:
    """Allowed infix operators with their precedence, functions and variable names of an expression.

    Powers and rational numbers as sympy prints them (`Pow(x, 2)`, `Rational(1, 2)`) are always allowed.
    """

    operators: Mapping[str, int]
    functions: frozenset[str]
    is_name: Callable[[str], bool] = lambda name: False
    factorials: bool = False


def literal_fault(text: str) -> str | None:
    """Return why `text` is not a Python literal; None for numbers, quoted texts, and lists and tuples of them.

    The outermost brackets may be missing.
    """
    return _find_fault(text, lambda tokens: _Literal(tokens).read())


def expression_fault(text: str, allowed: Expressions) -> str | None:
    """Return why `text` is not an allowed expression, or could have too large a value; None if it may be evaluated."""
    return _find_fault(text, lambda tokens: _Expression(tokens, allowed).read())


def nesting_fault(text: str, deepest: int) -> str | None:
    """Return why the brackets of `text` are nested too deeply for a recursive parser; None if they are not."""
    depth = 0
    for match in re.finditer(r"[\[{(]|[\]})]", text):
        depth = depth + 1 if match.group() in "[{(" else max(0, depth - 1)
        if depth > deepest:
            return f"brackets are nested more than {deepest} deep at character {match.start() + 1}"
    return None


class _NotInGrammar(Exception):  # noqa: N818 - its text becomes the fault that is returned
    """Raised at the first token that the grammar does not allow."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    def unexpected(self, expected: str) -> _NotInGrammar:
        """Return the error for this token where `expected` was expected."""
        actual = self.text if self.text == _END else quote(self.text, limit=30)
        return _NotInGrammar(f"expected {expected} and found {actual} at character {self.at + 1}")


def _find_fault(text: str, read: Callable[[list[_Token]], None]) -> str | None:
    try:
        read(_tokenize(text))
    except _NotInGrammar as unexpected:
        return str(unexpected)
    return None


def _tokenize(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _NotInGrammar(f"{quote(text[at : at + 20])} at character {at + 1} cannot stand in it")
        kind, token = match.lastgroup or "", match.group()
        if kind == "number" and len(token) > _LONGEST_NUMBER:
            raise _NotInGrammar(f"the number at character {at + 1} has more than {_LONGEST_NUMBER} digits")
        if kind != "space":
            tokens.append(_Token(kind, token, at))
        at = match.end()
    return [*tokens, _Token("sign", _END, at)]


class _Reader:
    """Base of the two parsers: a cursor over the tokens, and a limit on the recursion depth."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokenize = tokens
        self._next = 0
        self._depth = 0

    @property
    def _token(self) -> _Token:
        return self._tokenize[self._next]

    def _advance(self) -> _Token:
        token = self._token
        self._next += 1
        return token

    def _accept(self, *signs: str) -> str:
        """Consume the next token if it is one of `signs` and return its text; else return an empty text."""
        if self._token.kind == "sign" and self._token.text in signs:
            return self._advance().text
        return ""

    def _expect(self, sign: str, expected: str = "") -> None:
        if not self._accept(sign):
            raise self._token.unexpected(expected or repr(sign))

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NotInGrammar(f"it is nested more than {_DEEPEST} deep at character {self._token.at + 1}")
        yield
        self._depth -= 1


class _Literal(_Reader):
    def read(self) -> None:
        self._items(_END)

    def _items(self, close: str) -> None:
        """Read values with commas between them, up to and including `close`."""
        while not self._accept(close):
            self._value()
            if not self._accept(","):
                self._expect(close, f"',' or {close}")
                break

    def _value(self) -> None:
        if self._accept("-", "+"):
            if self._token.kind != "number":
                raise self._token.unexpected("a number")
            self._advance()
        elif bracket := self._accept("[", "("):
            with self._nested():
                self._items("]" if bracket == "[" else ")")
        elif self._token.kind in {"number", "text"}:
            self._advance()
        else:
            raise self._token.unexpected("a number, a quoted text or a list")


@dataclass(frozen=True, slots=True)
class _Size:
    """Upper bounds of a value, computed without evaluating it.

    `top` and `bottom` bound log2 of its numerator and denominator, `degree` its degree in the variables. `number` is
    the exact value of a literal, which gives tighter bounds when the literal is an exponent.
    """

    top: float = 0.0
    bottom: float = 0.0
    degree: float = 0.0
    number: float | None = None

    def check(self, at: int) -> _Size:
        """Return the size itself. Raises `_NotInGrammar` where it exceeds a bound, naming the position `at`."""
        if max(self.top, self.bottom) > _MOST_BITS:
            raise _NotInGrammar(f"the value before character {at + 1} may have more than {_MOST_BITS:.0f} bits")
        if self.degree > _MOST_DEGREE:
            raise _NotInGrammar(f"the degree before character {at + 1} may be more than {_MOST_DEGREE:.0f}")
        return self


class _Expression(_Reader):
    def __init__(self, tokens: list[_Token], allowed: Expressions) -> None:
        super().__init__(tokens)
        self._allowed = allowed

    def read(self) -> None:
        self._infix(0)
        self._expect(_END, "an operator or the end")

    def _infix(self, lowest: int) -> _Size:
        """Parse operators of at least the precedence `lowest`, by precedence climbing."""
        left = self._signed()
        while True:
            precedence = self._allowed.operators.get(self._token.text, -1) if self._token.kind == "sign" else -1
            if precedence < lowest:
                return left
            operator = self._advance().text
            right = self._infix(precedence + 1)
            left = _combine(operator, left, right).check(self._token.at)

    def _signed(self) -> _Size:
        """Parse a value with its signs, which bind less tightly than a power, as in Python: -x**2 is -(x**2)."""
        if sign := self._accept("-", "+"):
            with self._nested():
                size = self._signed()
            negated = -size.number if sign == "-" and size.number is not None else size.number
            return replace(size, number=negated)
        base = self._postfix()
        if not self._accept("**"):
            return base
        with self._nested():
            exponent = self._signed()
        return _power(base, exponent, self._token.at)

    def _postfix(self) -> _Size:
        size = self._atom()
        if self._allowed.factorials and self._accept("!"):
            self._accept("!")  # the double factorial n!! is less than n!, so the same bound holds
            size = _factorial(size, self._token.at)
        return size

    def _atom(self) -> _Size:
        token = self._token
        if token.kind == "number":
            return _number(self._advance().text).check(self._token.at)
        if self._accept("("):
            return self._bracketed()
        if token.kind == "name":
            self._advance()
            if self._accept("("):
                return self._call(token)
            if self._allowed.is_name(token.text):
                return _Size(degree=1)
        raise token.unexpected("a number, a name of the problem or a bracket")

    def _call(self, name: _Token) -> _Size:
        if name.text in _NUMBERS_BY_NAME:
            return self._named_number(most=_NUMBERS_BY_NAME[name.text])
        if name.text not in self._allowed.functions | _POWERS:
            raise name.unexpected("a function that may stand in it")
        with self._nested():
            first = self._infix(0)
            second = self._infix(0) if self._has_second_argument(name.text) else None
            self._expect(")")
        at = self._token.at
        if second is None:
            return _apply(name.text, first, at)
        if name.text in _LOGARITHMS:
            return _combine("/", _apply("log", first, at), _apply("log", second, at)).check(at)
        return _power(first, _reciprocal(second) if name.text == "root" else second, at)

    def _has_second_argument(self, function: str) -> bool:
        """Return whether a second argument follows: powers require one, and logarithms may have one."""
        if function in _POWERS:
            self._expect(",")
            return True
        return function in _LOGARITHMS and bool(self._accept(","))

    def _named_number(self, most: int) -> _Size:
        """Parse one to `most` integer literals and the closing bracket; sympy's `S` would evaluate anything else."""
        integers = [self._integer()]
        while len(integers) < most and self._accept(","):
            integers.append(self._integer())
        self._expect(")")
        top, bottom = [*integers, 1][:2]
        if bottom == 0:
            raise self._token.unexpected("a denominator other than 0 before it")
        size = _Size(math.log2(max(1, abs(top))), math.log2(abs(bottom)), number=top / bottom)
        return size.check(self._token.at)

    def _integer(self) -> int:
        sign = self._accept("-", "+")
        if self._token.kind != "number" or not self._token.text.isdecimal():
            raise self._token.unexpected("a whole number")
        return int(sign + self._advance().text)

    def _bracketed(self) -> _Size:
        with self._nested():
            size = self._infix(0)
            self._expect(")")
        return size


def _number(text: str) -> _Size:
    # Bounds of the exact fraction: 1.25e-3 is 125 / 10**5.
    mantissa, _, exponent = text.lower().replace("_", "").partition("e")
    before, _, after = mantissa.partition(".")
    shift = int(exponent or 0)
    top = math.log2(max(1, int(before + after))) + max(0, shift) * math.log2(10)
    bottom = (len(after) - min(0, shift)) * math.log2(10)
    return _Size(top, bottom, number=float(text.replace("_", "")))


def _combine(operator: str, left: _Size, right: _Size) -> _Size:
    """Return the bounds of a binary operation other than a power."""
    degree = left.degree + right.degree
    if operator == "*":
        return _Size(left.top + right.top, left.bottom + right.bottom, degree)
    if operator in {"/", "//"}:
        return _Size(left.top + right.bottom, left.bottom + right.top, degree)
    # Sum, difference, remainder, xor: none exceeds the sum over the common denominator. The logarithm of a sum is
    # computed from the two logarithms, since the numbers themselves could overflow.
    first, second = left.top + right.bottom, right.top + left.bottom
    top = max(first, second) + math.log2(1 + math.exp2(-abs(first - second)))
    return _Size(top, left.bottom + right.bottom, max(left.degree, right.degree))


def _power(base: _Size, exponent: _Size, at: int) -> _Size:
    """Return the bounds of a power; `at` is the position that a fault names."""
    if exponent.number is None:
        times = _exponential(exponent.top)
        if exponent.degree:  # x**y is not expanded, so the degree stays; a tower of them grows as one of numbers
            larger, degree = max(base.top, base.bottom, 2.0) * times, base.degree
        else:
            larger, degree = max(base.top, base.bottom) * times, base.degree * times
        return _Size(larger, larger, degree).check(at)
    times = min(abs(exponent.number), 2.0**20)  # with more, every base but 0, 1 and -1 exceeds the bound anyway
    top, bottom = base.top * times, base.bottom * times
    if exponent.number < 0:
        top, bottom = bottom, top
    return _Size(top, bottom, base.degree * times).check(at)


def _reciprocal(size: _Size) -> _Size:
    return _Size(size.bottom, size.top, size.degree, 1 / size.number if size.number else None)


def _exponential(bits: float) -> float:
    return math.exp2(min(bits, 64.0))  # 2**64 is above every bound; more could overflow a float


def _factorial(size: _Size, at: int) -> _Size:
    value = _exponential(size.top)
    # n! <= n**n
    return _Size(value * math.log2(value + 1), size.bottom, size.degree).check(at)


def _apply(function: str, size: _Size, at: int) -> _Size:
    """Return the bounds of a function of one argument."""
    if function in {"exp", "sinh", "cosh"}:
        larger = 2 * _exponential(size.top)
        return _Size(larger, larger, size.degree).check(at)
    if function == "factorial":
        return _factorial(size, at)
    return replace(size, top=max(size.top, 2.0), number=None)
