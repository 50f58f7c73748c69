"""Declarations of tools, as requests send them to a model: brought into OpenAI's form."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from rollmill.corpus.producer_values import openai_tools
from rollmill.corpus.raw_json import without_nulls

_MAY_BE_NULL = frozenset({"default", "const", "example"})
"""Keywords of JSON Schema whose value may be null."""


@lru_cache(16)  # all rollouts of a run have the same tools
def normalize_tools(text: bytes) -> msgspec.Raw:
    """Return a JSON list of tools in OpenAI's form, without null fields that a table's writer added.

    Tools of an unknown form are kept unchanged, and so is the text where nothing has to change.
    """
    tools = [
        msgspec.json.decode(tool) if isinstance(tool, str) and tool[:1] == "{" else tool
        for tool in msgspec.json.decode(text)
    ]
    if all(isinstance(tool, dict) for tool in tools):
        formed = [form for tool in tools for form in openai_tools([tool]) or [tool]]
        if formed == tools and not _are_filled(tools) and bytes(text)[1:2] != b'"':
            return msgspec.Raw(text)
        tools = formed
    return msgspec.Raw(msgspec.json.encode(without_nulls(tools) if _are_filled(tools) else tools))


def _are_filled(value: Any) -> bool:
    """Return whether a field is null that no declaration has as null: a table's writer has filled it up."""
    if isinstance(value, list):
        return any(map(_are_filled, value))
    if not isinstance(value, dict):
        return False
    return any(item is None and key not in _MAY_BE_NULL for key, item in value.items()) or any(
        _are_filled(item) for key, item in value.items() if key not in _MAY_BE_NULL
    )
