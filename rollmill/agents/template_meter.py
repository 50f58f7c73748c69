"""Prices the operations of a template: each is charged before, or right after, its result is computed."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined
from jinja2.exceptions import SecurityError

BUDGET = 40_000_000
"""Units of one rendering: they last well under a second, and at most about 200 MB."""
STEP = 100
"""Units of an operation, however small its result."""
_ITEM = 20
"""Units of an item in a list or a mapping: looking at one takes as long as copying that many characters."""
LIMIT_S = 5.0
"""CPU seconds of one rendering: ten times what the budget takes, for operations that are priced too low."""
_DEEPEST = 50
_LONGEST_ATTRIBUTE = 200
_MOST_BITS = 20_000
CONTAINERS: Any = (list, tuple, set, frozenset, range, type({}.keys()), type({}.values()), type({}.items()))
_TEXT_METHODS = """
    capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace
    istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip
    split splitlines startswith strip swapcase title upper
"""
METHODS = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
_BACKWARDS = frozenset(("rfind", "rindex", "rpartition", "rsplit", "strip", "lstrip", "rstrip"))
"""Methods without a fast algorithm in CPython: they may scan the argument at every character."""
_WIDE = re.compile(r"[%)][ #0+\-.]*+(?:\d*+\.\s*+)?+(?:0*+[1-9]\d{3}|\*|\d{1,3}\*)")
"""A width or a precision of four digits, or one that is given beside the text; a `)` ends the name in `%(name)s`."""


class Meter:
    """The remaining budget of one rendering. `step`: units of an operation, with those of the text around it."""

    def __init__(self, step: int) -> None:
        self._left = BUDGET
        self._ends = time.thread_time() + LIMIT_S
        self.step = step

    def pay_step(self) -> None:
        """Charge one operation. Raises `TemplateRuntimeError` if the budget is exhausted, or after `LIMIT_S`."""
        self.charge(self.step)
        if time.thread_time() > self._ends:
            raise TemplateRuntimeError(f"it takes more than {LIMIT_S:g} s")

    def charge(self, units: int) -> None:
        """Charge units. Raises `TemplateRuntimeError` if the budget is exhausted."""
        self._left -= units
        if self._left < 0:
            raise TemplateRuntimeError(f"it does more than a template may ({BUDGET:,} characters and items in total)")

    def weigh(self, value: Any) -> int:
        """Charge a value and everything nested in it, repeated references each time; return the units charged."""
        before = self._left
        waiting = [(value, 0)]  # a stack, not recursion: values may be nested deeper than Python's stack
        while waiting:
            part, depth = waiting.pop()
            if isinstance(part, str):
                self.charge(1 + len(part))
            elif isinstance(part, int) and part.bit_length() > _MOST_BITS:
                raise TemplateRuntimeError(f"it computes with a number of more than {_MOST_BITS:,} bits")
            elif isinstance(part, int):
                # Formatting, multiplying and dividing take the square of the bits.
                self.charge(1 + (part.bit_length() ** 2 >> 16))
            elif part is None or isinstance(part, float | Undefined):
                self.charge(1)
            elif depth >= _DEEPEST:
                raise TemplateRuntimeError(f"it nests values more than {_DEEPEST} deep")
            elif isinstance(part, dict):
                self.charge(1 + 2 * _ITEM * len(part))
                waiting += [(item, depth + 1) for pair in part.items() for item in pair]
            elif isinstance(part, CONTAINERS):
                self.charge(1 + _ITEM * len(part))
                if not isinstance(part, range):
                    waiting += [(item, depth + 1) for item in part]
            else:
                raise TemplateRuntimeError(f"{type(part).__name__} is no text, number, list or mapping")
        return before - self._left

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, each charged as a step."""
        for item in items:
            self.pay_step()
            yield item


METER: ContextVar[Meter] = ContextVar("meter")


def check_operands(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """Charge the result of a binary operation before it is computed.

    Args:
        meter: Is charged.
        operator: As in the template: `*`, `**`, `%` and `+` have prices, others none.
        left: Left operand.
        right: Right operand.
    """
    if operator == "*":
        for value, count in ((left, right), (right, left)):
            if isinstance(count, int) and not isinstance(value, int | float):
                meter.charge(meter.weigh(value) * max(count, 0))
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        meter.charge(left.bit_length() * abs(right) * STEP)
        meter.weigh(left)
    elif operator == "%" and isinstance(left, str):
        _check_format(meter, left, right)
    elif operator == "+":
        meter.weigh(left)
        meter.weigh(right)


def check_method(meter: Meter, receiver: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Charge the result of a method of a text, list or mapping before it is called.

    Raises `SecurityError` for a method that is not in `METHODS`.

    Args:
        meter: Is charged.
        receiver: The object of the method.
        name: The method's.
        args: Positional arguments of the call.
        kwargs: Named arguments of the call.
    """
    if not any(isinstance(receiver, kind) and name in names for kind, names in METHODS.items()):
        raise SecurityError(f"the method {name} of {type(receiver).__name__} is not for templates")
    for value in (*args, *kwargs.values()):
        meter.weigh(value)
    if name in ("get", "items", "keys", "values"):
        return
    meter.weigh(receiver)
    if name in _BACKWARDS:
        _check_product(meter, receiver, *args, **kwargs)
    elif name == "replace":
        _check_replace(meter, receiver, *args)
    elif name == "join" and args:
        _check_join(meter, args[0], receiver)


def _check_format(meter: Meter, text: Any, *args: Any, **kwargs: Any) -> None:
    if _WIDE.search(str(text)):
        raise TemplateRuntimeError("a format may be at most 999 wide")
    meter.charge(str(text).count("%") * (1000 + meter.weigh([*args, *kwargs.values()])))


def _check_replace(meter: Meter, text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    """Charge `replace`.

    Args:
        meter: Is charged.
        text: Where it replaces.
        old: An empty one matches between all characters.
        new: Inserted for each match.
    """
    meter.charge((str(text).count(str(old)) + 1) * len(str(new)))


def _check_join(meter: Meter, values: Any, d: Any = "", attribute: Any = None) -> None:
    """Charge the separators of `join`; its items are charged as arguments.

    Args:
        meter: Is charged.
        values: The items.
        d: Separator, by Jinja's name.
        attribute: Of the items; charged by `check_attribute`.
    """
    meter.charge(len(values) * len(str(d)))


def _check_indent(meter: Meter, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    meter.charge((len(str(text).splitlines()) + 1) * _size(width))


def _check_wrap(
    meter: Meter, text: Any, width: Any = 79, break_long_words: Any = True, wrapstring: Any = None, *_: Any, **__: Any
) -> None:
    """Charge `wordwrap`.

    Args:
        meter: Is charged.
        text: To wrap.
        width: Characters of a line.
        break_long_words: Not priced.
        wrapstring: Joins the lines; None for a newline.
    """
    meter.charge(len(str(text)) * (1 + len(str(wrapstring or ""))) * 10)  # textwrap is slow
    # For every line that it cuts from a long word, textwrap copies the rest of the word.
    longest = max(map(len, re.findall(r"[^\S\n]+|\S+", str(text))), default=0)
    meter.charge(longest**2 // max(_size(width), 1) // 32)


def _check_product(meter: Meter, text: Any, *args: Any, **kwargs: Any) -> None:
    meter.charge(
        len(str(text)) * sum(len(argument) for argument in (*args, *kwargs.values()) if isinstance(argument, str))
    )


def check_attribute(meter: Meter, items: Any, attribute: Any) -> None:
    """Charge the lookup of an attribute, or of a path of attributes, for every item."""
    if isinstance(attribute, str):
        if len(attribute) > _LONGEST_ATTRIBUTE:
            raise TemplateRuntimeError(f"an attribute has at most {_LONGEST_ATTRIBUTE} characters")
        meter.charge(len(items) * (attribute.count(".") + attribute.count(",")) * STEP)


def _check_number(meter: Meter, value: Any, number: Any = 0, *_: Any, **named: Any) -> None:
    sizes = [_size(argument) for argument in (number, *named.values())]
    meter.charge(sum(sizes) * (1 + (len(value) if isinstance(value, str) else 0)))


def _check_round(meter: Meter, value: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if not isinstance(precision, int) or abs(precision) > 100:
        raise TemplateRuntimeError(f"cannot round to {str(precision)[:20]} places")


def _check_json(meter: Meter, value: Any, indent: Any = None) -> None:
    meter.charge(meter.weigh(value) * (6 + _size(indent or 0) * _DEEPEST))


def _check_sum(meter: Meter, value: Any, attribute: Any = None, start: Any = 0) -> None:
    """Refuse `sum` of anything but numbers: lists would be copied for every item.

    Args:
        meter: Not charged: the items are charged as arguments.
        value: The items.
        attribute: Of the items; charged by `check_attribute`.
        start: First summand.
    """
    if not isinstance(start, int | float):
        raise TemplateRuntimeError("sum adds numbers")


def _size(value: Any) -> int:
    return abs(operator.index(value)) if isinstance(value, int) else len(str(value))


ATTRIBUTES = {"groupby": 1, "join": 2, "map": 9, "max": 2, "min": 2, "rejectattr": 1, "selectattr": 1, "sort": 3,
              "sum": 1, "unique": 2}  # fmt: skip
"""Filters that look up an attribute, with its position where it is passed as positional argument."""
CHECKS: dict[str, Callable[..., None]] = {
    "batch": _check_number,
    "center": _check_number,
    "format": _check_format,
    "indent": _check_indent,
    "join": _check_join,
    "replace": _check_replace,
    "round": _check_round,
    "slice": _check_number,
    "sum": _check_sum,
    "tojson": _check_json,
    "trim": _check_product,
    "wordwrap": _check_wrap,
}
