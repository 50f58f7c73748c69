"""Read untrusted YAML: plain values only, with limits on size, depth and expanded aliases.

`yaml.safe_load` creates no arbitrary Python objects, but expands aliases without a limit: nine lines can stand for a
billion values, which fill the memory as soon as code iterates over them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]  # stubs are a package of their own

MAX_LENGTH = 1_000_000
"""Longest text, in characters or bytes."""
MAX_VALUES = 100_000
"""Most values, counting what an alias refers to at each occurrence."""
MAX_DEPTH = 50
MAX_NUMBER_LENGTH = 300
"""Characters of a number: parsing takes quadratic time, and Python formats no integer of more than 4,300 digits."""
_INT_LIMIT = 10**MAX_NUMBER_LENGTH
"""The smallest integer that is too large: 300 hexadecimal digits can exceed the largest float."""


_TAG_ERRORS = (ValueError, OverflowError, LookupError, AttributeError, TypeError)
"""Errors that PyYAML raises for a value that does not fit its tag: an impossible date, `!!bool x`, `!!int ''`."""


class YamlDocument(NamedTuple):
    """A parsed document."""

    value: Any
    node: Any
    """PyYAML's node, which has line numbers; None for an empty text."""


class BadYamlError(ValueError):
    """A text that is not valid YAML, or exceeds the limits; `line`, counted from 1, is None where it is not known.

    Messages continue the name of the file: "FILE: it nests more than 50 deep".
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """PyYAML's safe loader with limits on depth and on the length of numbers."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Parse a node with its children."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadYamlError(f"it nests more than {MAX_DEPTH} deep", self.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_yaml_int(self, node: Any) -> Any:
        """Return an integer that is small enough to be converted to a float."""
        self._check_length(node)
        value = super().construct_yaml_int(node)
        if abs(value) >= _INT_LIMIT:
            raise self._number_error(node)
        return value

    def construct_yaml_float(self, node: Any) -> Any:
        """Return a float."""
        self._check_length(node)
        return super().construct_yaml_float(node)

    def _check_length(self, node: Any) -> None:
        if len(node.value) > MAX_NUMBER_LENGTH:
            raise self._number_error(node)

    def _number_error(self, node: Any) -> BadYamlError:
        message = f"{node.value[:40]}... is not a number of at most {MAX_NUMBER_LENGTH} digits: put a text in quotes"
        return BadYamlError(message, node.start_mark.line + 1)


# Overriding the methods is not enough: PyYAML's table of constructors has the functions of the base class.
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_yaml(text: str | bytes) -> YamlDocument:
    """Parse a text with one document. Raises `BadYamlError`."""
    if len(text) > MAX_LENGTH:
        raise BadYamlError(f"it is {len(text):,} characters long, at most {MAX_LENGTH:,} are read")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlDocument(None, None)
        size = _measure(node, {})
        if size.values > MAX_VALUES or size.depth > MAX_DEPTH:
            bounds = f"{MAX_VALUES:,} values, {MAX_DEPTH} deep"
            raise BadYamlError(f"with its aliases expanded it is larger than the limit ({bounds})")
        return YamlDocument(loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadYamlError(f"not valid YAML: {str(error.problem)[:300]}", mark.line + 1 if mark else None) from error
    except BadYamlError:  # it is a `ValueError`, which the next clause would catch
        raise
    except (yaml.YAMLError, *_TAG_ERRORS) as error:
        raise BadYamlError(f"not valid YAML in UTF-8: {' '.join(str(error).split())[:300]}") from error


class _Size(NamedTuple):
    values: int
    depth: int


def _measure(node: Any, known: dict[int, _Size | None]) -> _Size:
    """Return a node's size with its aliases expanded, without expanding them: `known` has the sizes by node id.

    The recursion is bounded: nodes are composed at most `MAX_DEPTH` deep, and an anchor precedes its aliases, so that
    it is measured before them.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise BadYamlError("a value contains itself through an alias: write it out")
        return size
    known[id(node)] = None  # in progress: reaching it again is a cycle
    parts: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    sizes = [_measure(part, known) for part in parts]
    size = _Size(1 + sum(item.values for item in sizes), 1 + max((item.depth for item in sizes), default=0))
    known[id(node)] = size
    return size
