"""Cells and their values."""

from .cells import position
from .formula import parse


class CycleError(ValueError):
    """A formula needs its own value."""


class Sheet:
    """Cells are integers or formulas, which begin with an equals sign."""

    def __init__(self):
        self._contents = {}

    def set(self, name, content):
        """Puts an integer or a formula into a cell. Raises `ValueError` for a name that is none."""
        position(name)
        if not isinstance(content, (int, str)):
            raise TypeError(f"{name}: neither an integer nor a formula")
        if isinstance(content, str) and not content.startswith("="):
            raise ValueError(f"{name}: {content!r} does not begin with =")
        self._contents[name] = content

    def clear(self, name):
        """Makes a cell one that was never set."""
        self._contents.pop(name, None)

    def value(self, name):
        """The value of a cell, an integer. Raises `CycleError`, and `FormulaError` for what is no formula."""
        return self._value(name, ())

    def values(self):
        """The values of all cells that are set, in the order in which they were."""
        return {name: self.value(name) for name in self._contents}

    def _value(self, name, above):
        if name in above:
            raise CycleError(" needs ".join([*above[above.index(name) :], name]))
        content = self._contents.get(name, 0)
        if isinstance(content, int):
            return content
        return self._evaluate(parse(content[1:]), (*above, name))

    def _evaluate(self, tree, above):
        kind = tree[0]
        if kind == "number":
            return tree[1]
        if kind == "cell":
            return self._value(tree[1], above)
        if kind == "negative":
            return -self._evaluate(tree[1], above)
        if kind == "COUNT":
            return sum(name in self._contents for name in tree[1])
        if kind in ("SUM", "MAX", "MIN"):
            function = {"SUM": sum, "MAX": max, "MIN": min}[kind]
            return function([self._value(name, above) for name in tree[1]])
        left, right = self._evaluate(tree[1], above), self._evaluate(tree[2], above)
        return {"+": left + right, "-": left - right, "*": left * right}[kind]
