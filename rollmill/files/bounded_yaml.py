"""Read YAML that may be anybody's: plain values only, and no more of them than the text is long.

`yaml.safe_load` makes no objects of Python's, but follows aliases without end: nine lines of them stand for a billion
values, which fill the memory as soon as somebody walks over them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]  # stubs are a package of their own

LONGEST = 1_000_000
"""Characters, or bytes."""
MOST_VALUES = 100_000
"""With what aliases stand for counted as often as it stands there."""
DEEPEST = 50
LONGEST_NUMBER = 300
"""Characters: the time for one grows with their square, and Python writes no integer of over 4,300 digits."""
_LARGEST_INT = 10**LONGEST_NUMBER


_OF_A_TAG = (ValueError, OverflowError, LookupError, AttributeError, TypeError)
"""What PyYAML fails with on a value that its tag is not true of: a date that is none, `!!bool x`, `!!int ''`."""


class YamlDocument(NamedTuple):
    """What a text says."""

    value: Any
    node: Any
    """PyYAML's own, which knows lines; None for an empty text."""


class BadYamlError(ValueError):
    """A text that is no YAML, or too much of it; `line` is where, from 1 on, where that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """PyYAML's safe loader, whose nodes are counted before anything is made of them."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read a node and what is in it."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise BadYamlError(f"it nests more than {DEEPEST} deep", self.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_yaml_int(self, node: Any) -> Any:
        """Make an integer that is also a float's size."""
        self._check_length(node)
        value = super().construct_yaml_int(node)
        if abs(value) >= _LARGEST_INT:
            raise self._too_long(node)
        return value

    def construct_yaml_float(self, node: Any) -> Any:
        """Make a float."""
        self._check_length(node)
        return super().construct_yaml_float(node)

    def _check_length(self, node: Any) -> None:
        if len(node.value) > LONGEST_NUMBER:
            raise self._too_long(node)

    def _too_long(self, node: Any) -> BadYamlError:
        what = f"{node.value[:40]}... is no number of at most {LONGEST_NUMBER} digits: a text is put in quotes"
        return BadYamlError(what, node.start_mark.line + 1)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_yaml(text: str | bytes) -> YamlDocument:
    """Return the one document in a text. Raises `BadYamlError`."""
    if len(text) > LONGEST:
        raise BadYamlError(f"it is {len(text):,} characters long, at most {LONGEST:,} are read")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlDocument(None, None)
        size = _measure(node, {})
        if size.values > MOST_VALUES or size.depth > DEEPEST:
            bounds = f"{MOST_VALUES:,} values, {DEEPEST} deep"
            raise BadYamlError(f"with its aliases written out it is larger than what is read ({bounds})")
        return YamlDocument(loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadYamlError(f"not valid YAML: {str(error.problem)[:300]}", mark.line + 1 if mark else None) from error
    except BadYamlError:
        raise
    except (yaml.YAMLError, *_OF_A_TAG) as error:
        raise BadYamlError(f"not valid YAML in UTF-8: {' '.join(str(error).split())[:300]}") from error


class _Size(NamedTuple):
    values: int
    depth: int


def _measure(node: Any, known: dict[int, _Size | None]) -> _Size:
    """Return a node's size with its aliases written out."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise BadYamlError("a setting is part of itself: write it out")
        return size
    known[id(node)] = None
    parts: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    sizes = [_measure(part, known) for part in parts]
    size = _Size(1 + sum(item.values for item in sizes), 1 + max((item.depth for item in sizes), default=0))
    known[id(node)] = size
    return size
