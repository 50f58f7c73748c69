"""Validate configurations of reasoning-gym data sets, which may come from an untrusted data file.

A few data sets pass texts of their configuration to sympy's parser, which evaluates them, or to `open`. Such texts must
be plain names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9]{0,19}(?:_[A-Za-z0-9]{1,20})?", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(?:\.[A-Za-z0-9]{1,10})?", re.ASCII)

_NAMES: dict[tuple[str, str], tuple[re.Pattern[str], str]] = {
    # The scorers parse, and thereby evaluate, integrands and products that contain these symbols.
    ("intermediate_integration", "symbols"): (_SYMBOL, "a symbol's name"),
    ("polynomial_multiplication", "variables"): (_SYMBOL, "a symbol's name"),
    ("simple_integration", "symbols"): (_SYMBOL, "a symbol's name"),
    # A file of the package; the data set would also open a path outside of it.
    ("spell_backward", "data_file"): (_FILE_NAME, "the name of a file of reasoning-gym's own data"),
}


def config_fault(name: str, config_class: type, config: Mapping[str, Any]) -> str | None:
    """Return why the data set `name` must not be created from `config`, or None. Its own checks come afterwards.

    Text in a number's place is refused for all data sets, since some evaluate problems that contain it.
    """
    if name == "composite":
        return "composite is made of other data sets, whose configurations cannot be given: name one of those instead"
    for field in fields(config_class):
        value = config.get(field.name)
        if value is None:
            continue
        if _is_number(field) and not isinstance(value, int | float):
            return f"{field.name} must be a number, found {_shown(value)}"
        if (name, field.name) in _NAMES:
            pattern, meaning = _NAMES[name, field.name]
            for text in value if isinstance(value, list | tuple) else [value]:
                if not (isinstance(text, str) and pattern.fullmatch(text)):
                    return f"{field.name} must be {meaning}, found {_shown(text)}"
    return None


def _is_number(field: Field[Any]) -> bool:
    return field.default is not MISSING and isinstance(field.default, int | float)


def _shown(value: Any) -> str:
    """Return a text, truncated, for a message; for other values only their type, since they may be large and deep."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:60] + "...")
    return f"a value of type {type(value).__name__}"
