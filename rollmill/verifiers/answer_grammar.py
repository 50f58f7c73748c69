"""Small grammars for answers that an interpreter will see: literals, and expressions of bounded size.

A text is read by a tokenizer of its own and by recursive descent, and nothing of it is evaluated. What the grammars
hold is a part of Python, so that `eval` and sympy's `parse_expr` read it as it is read here: no attributes, no
subscripts, no keywords, no strings with a prefix or an escape, and only ASCII (Python folds other letters into names).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rollmill.verifiers.answer_tag import shown

_DEEPEST = 40  # Python's own parser takes 200 brackets, and sympy adds one of its own to each number
_LONGEST_NUMBER = 300
_MOST_BITS = 4096.0
_MOST_DEGREE = 200.0
_END = "the end"

# How sympy writes a number by name, with how many integers, and functions of two arguments.
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
    """What an expression may hold: infix operators with their precedence, functions, and names.

    Powers and rational numbers that are written as calls, as sympy writes them, may always stand in it.
    """

    operators: Mapping[str, int]
    functions: frozenset[str]
    is_name: Callable[[str], bool] = lambda name: False
    factorials: bool = False


def literal_fault(text: str) -> str | None:
    """Return why `text` is not a literal; None for a number, a text, or lists and tuples of them.

    The outermost brackets may be missing.
    """
    return _fault_of(text, lambda tokens: _Literal(tokens).read())


def expression_fault(text: str, allowed: Expressions) -> str | None:
    """Return why `text` is not an allowed expression, or one whose value could grow too large; None for others."""
    return _fault_of(text, lambda tokens: _Expression(tokens, allowed).read())


def nesting_fault(text: str, deepest: int) -> str | None:
    """Return why the brackets of `text` are nested too deeply for a recursive parser; None for others."""
    depth = 0
    for match in re.finditer(r"[\[{(]|[\]})]", text):
        depth = depth + 1 if match.group() in "[{(" else max(0, depth - 1)
        if depth > deepest:
            return f"brackets are nested more than {deepest} deep at character {match.start() + 1}"
    return None


class _Outside(Exception):  # noqa: N818 - says where a text leaves the grammar
    pass


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    def outside(self, expected: str) -> _Outside:
        actual = self.text if self.text == _END else shown(self.text, limit=30)
        return _Outside(f"expected {expected} and found {actual} at character {self.at + 1}")


def _fault_of(text: str, read: Callable[[list[_Token]], None]) -> str | None:
    try:
        read(_tokens(text))
    except _Outside as outside:
        return str(outside)
    return None


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Outside(f"{shown(text[at : at + 20])} at character {at + 1} cannot stand in it")
        kind, token = match.lastgroup or "", match.group()
        if kind == "number" and len(token) > _LONGEST_NUMBER:
            raise _Outside(f"the number at character {at + 1} has more than {_LONGEST_NUMBER} digits")
        if kind != "space":
            tokens.append(_Token(kind, token, at))
        at = match.end()
    return [*tokens, _Token("sign", _END, at)]


class _Reader:
    """Steps through tokens and counts how deep the descent is."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += 1
        return token

    def _takes(self, *signs: str) -> str:
        """Take the next token where it is one of `signs`, and return its text; empty otherwise."""
        if self._token.kind == "sign" and self._token.text in signs:
            return self._take().text
        return ""

    def _expect(self, sign: str, expected: str = "") -> None:
        if not self._takes(sign):
            raise self._token.outside(expected or repr(sign))

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Outside(f"it is nested more than {_DEEPEST} deep at character {self._token.at + 1}")
        yield
        self._depth -= 1


class _Literal(_Reader):
    def read(self) -> None:
        self._items(_END)

    def _items(self, close: str) -> None:
        """Read values with commas between them, up to and including `close`."""
        while not self._takes(close):
            self._value()
            if not self._takes(","):
                self._expect(close, f"',' or {close}")
                break

    def _value(self) -> None:
        if self._takes("-", "+"):
            if self._token.kind != "number":
                raise self._token.outside("a number")
            self._take()
        elif bracket := self._takes("[", "("):
            with self._deeper():
                self._items("]" if bracket == "[" else ")")
        elif self._token.kind in {"number", "text"}:
            self._take()
        else:
            raise self._token.outside("a number, a quoted text or a list")


@dataclass(frozen=True, slots=True)
class _Size:
    """Bounds of a value: log2 of its numerator and its denominator, and its degree in the names.

    `number` is the value itself where it is written as one: as an exponent it says more than its bounds.
    """

    top: float = 0.0
    bottom: float = 0.0
    degree: float = 0.0
    number: float | None = None

    def checked(self, at: int) -> _Size:
        if max(self.top, self.bottom) > _MOST_BITS:
            raise _Outside(f"the value before character {at + 1} may have more than {_MOST_BITS:.0f} bits")
        if self.degree > _MOST_DEGREE:
            raise _Outside(f"the degree before character {at + 1} may be more than {_MOST_DEGREE:.0f}")
        return self


class _Expression(_Reader):
    def __init__(self, tokens: list[_Token], allowed: Expressions) -> None:
        super().__init__(tokens)
        self._allowed = allowed

    def read(self) -> None:
        self._infix(0)
        self._expect(_END, "an operator or the end")

    def _infix(self, lowest: int) -> _Size:
        left = self._signed()
        while True:
            precedence = self._allowed.operators.get(self._token.text, -1) if self._token.kind == "sign" else -1
            if precedence < lowest:
                return left
            operator = self._take().text
            right = self._infix(precedence + 1)
            left = _combined(operator, left, right).checked(self._token.at)

    def _signed(self) -> _Size:
        """Read a value with its signs, which bind less than a power, as in Python: -x**2 is -(x**2)."""
        if sign := self._takes("-", "+"):
            with self._deeper():
                size = self._signed()
            negated = -size.number if sign == "-" and size.number is not None else size.number
            return replace(size, number=negated)
        base = self._postfix()
        if not self._takes("**"):
            return base
        with self._deeper():
            exponent = self._signed()
        return _power(base, exponent, self._token.at)

    def _postfix(self) -> _Size:
        size = self._atom()
        if self._allowed.factorials and self._takes("!"):
            self._takes("!")  # n!! is less than n!
            size = _factorial(size, self._token.at)
        return size

    def _atom(self) -> _Size:
        token = self._token
        if token.kind == "number":
            return _number(self._take().text).checked(self._token.at)
        if self._takes("("):
            return self._inside()
        if token.kind == "name":
            self._take()
            if self._takes("("):
                return self._call(token)
            if self._allowed.is_name(token.text):
                return _Size(degree=1)
        raise token.outside("a number, a name of the problem or a bracket")

    def _call(self, name: _Token) -> _Size:
        if name.text in _NUMBERS_BY_NAME:
            return self._named_number(most=_NUMBERS_BY_NAME[name.text])
        if name.text not in self._allowed.functions | _POWERS:
            raise name.outside("a function that may stand in it")
        with self._deeper():
            first = self._infix(0)
            second = self._infix(0) if self._second(name.text) else None
            self._expect(")")
        at = self._token.at
        if second is None:
            return _applied(name.text, first, at)
        if name.text in _LOGARITHMS:
            return _combined("/", _applied("log", first, at), _applied("log", second, at)).checked(at)
        return _power(first, _reciprocal(second) if name.text == "root" else second, at)

    def _second(self, function: str) -> bool:
        """Return whether a second argument follows: powers have one, and logarithms may."""
        if function in _POWERS:
            self._expect(",")
            return True
        return function in _LOGARITHMS and bool(self._takes(","))

    def _named_number(self, most: int) -> _Size:
        """Read one to `most` integer literals: sympy's `S` would evaluate anything else."""
        integers = [self._integer()]
        while len(integers) < most and self._takes(","):
            integers.append(self._integer())
        self._expect(")")
        top, bottom = [*integers, 1][:2]
        if bottom == 0:
            raise self._token.outside("a denominator other than 0 before it")
        size = _Size(math.log2(max(1, abs(top))), math.log2(abs(bottom)), number=top / bottom)
        return size.checked(self._token.at)

    def _integer(self) -> int:
        sign = self._takes("-", "+")
        if self._token.kind != "number" or not self._token.text.isdecimal():
            raise self._token.outside("a whole number")
        return int(sign + self._take().text)

    def _inside(self) -> _Size:
        with self._deeper():
            size = self._infix(0)
            self._expect(")")
        return size


def _number(text: str) -> _Size:
    mantissa, _, exponent = text.lower().replace("_", "").partition("e")
    before, _, after = mantissa.partition(".")
    shift = int(exponent or 0)
    top = math.log2(max(1, int(before + after))) + max(0, shift) * math.log2(10)
    bottom = (len(after) - min(0, shift)) * math.log2(10)
    return _Size(top, bottom, number=float(text.replace("_", "")))


def _combined(operator: str, left: _Size, right: _Size) -> _Size:
    degree = left.degree + right.degree
    if operator == "*":
        return _Size(left.top + right.top, left.bottom + right.bottom, degree)
    if operator in {"/", "//"}:
        return _Size(left.top + right.bottom, left.bottom + right.top, degree)
    # Sum, difference, remainder, bitwise or: none is more than the sum over the common denominator.
    first, second = left.top + right.bottom, right.top + left.bottom
    top = max(first, second) + math.log2(1 + math.exp2(-abs(first - second)))
    return _Size(top, left.bottom + right.bottom, max(left.degree, right.degree))


def _power(base: _Size, exponent: _Size, at: int) -> _Size:
    if exponent.number is None:
        times = _exponential(exponent.top)
        if exponent.degree:  # nothing multiplies it out; a tower of them grows like one of numbers
            larger, degree = max(base.top, base.bottom, 2.0) * times, base.degree
        else:
            larger, degree = max(base.top, base.bottom) * times, base.degree * times
        return _Size(larger, larger, degree).checked(at)
    times = min(abs(exponent.number), 2.0**20)  # refused for every base but 0, 1 and -1
    top, bottom = base.top * times, base.bottom * times
    if exponent.number < 0:
        top, bottom = bottom, top
    return _Size(top, bottom, base.degree * times).checked(at)


def _reciprocal(size: _Size) -> _Size:
    return _Size(size.bottom, size.top, size.degree, 1 / size.number if size.number else None)


def _exponential(bits: float) -> float:
    return math.exp2(min(bits, 64.0))  # past every bound, and no overflow


def _factorial(size: _Size, at: int) -> _Size:
    value = _exponential(size.top)
    return _Size(value * math.log2(value + 1), size.bottom, size.degree).checked(at)


def _applied(function: str, size: _Size, at: int) -> _Size:
    if function in {"exp", "sinh", "cosh"}:
        larger = 2 * _exponential(size.top)
        return _Size(larger, larger, size.degree).checked(at)
    if function == "factorial":
        return _factorial(size, at)
    return replace(size, top=max(size.top, 2.0), number=None)
