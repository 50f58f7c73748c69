"""From the text of a formula to a tree of tuples.

    ("number", 3)  ("cell", "A1")  ("negative", tree)  ("+", tree, tree)  ("SUM", ["A1", "A2"])

`-` and `*` are like `+`, `MAX`, `MIN` and `COUNT` like `SUM`.
"""

import re

from .cells import position, rectangle

_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Z]+[0-9]+)|(SUM|MAX|MIN|COUNT)|([-+*():]))")


class FormulaError(ValueError):
    """The text is no formula."""


def parse(text):
    """The tree of a formula, given without its equals sign. Raises `FormulaError`."""
    tokens = _tokens(text)
    tree, rest = _sum(tokens)
    if rest:
        raise FormulaError(f"{text!r}: {rest[0]!r} is one too many")
    return tree


def _tokens(text):
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise FormulaError(f"{text!r}: {text[place:]!r} is not understood")
        tokens.append(match[0].strip())
        place = match.end()
    return tokens


def _sum(tokens):
    tree, rest = _product(tokens)
    while rest and rest[0] in "+-":
        right, after = _product(rest[1:])
        tree, rest = (rest[0], tree, right), after
    return tree, rest


def _product(tokens):
    tree, rest = _factor(tokens)
    while rest and rest[0] == "*":
        right, after = _factor(rest[1:])
        tree, rest = ("*", tree, right), after
    return tree, rest


def _factor(tokens):
    if not tokens:
        raise FormulaError("a formula ends too early")
    token, rest = tokens[0], tokens[1:]
    if token == "-":
        tree, rest = _factor(rest)
        return ("negative", tree), rest
    if token == "(":
        tree, rest = _sum(rest)
        return tree, _expect(")", rest)
    if token.isdigit():
        return ("number", int(token)), rest
    if token.isalpha():
        return _function(token, rest)
    return ("cell", _cell(token)), rest


def _function(name, tokens):
    rest = _expect("(", tokens)
    if len(rest) < 3 or rest[1] != ":":
        raise FormulaError(f"{name} wants a rectangle, such as A1:B2")
    return (name, rectangle(_cell(rest[0]), _cell(rest[2]))), _expect(")", rest[3:])


def _cell(token):
    try:
        position(token)
    except ValueError as error:
        raise FormulaError(str(error)) from None
    return token


def _expect(token, tokens):
    if tokens[:1] != [token]:
        raise FormulaError(f"{token!r} is missing")
    return tokens[1:]
