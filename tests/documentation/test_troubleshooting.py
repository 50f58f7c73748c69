"""The messages that the troubleshooting page quotes are the program's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.documentation.pages import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
QUOTED = re.findall(r"^### `(.+)`$", PAGE.read_text(), re.MULTILINE)
VALUE = "\0"


def literals(source: str) -> Iterator[str]:
    """Yield the string literals of a module, concatenated parts joined; each interpolated value is one `\\0`."""
    tree = ast.parse(source)
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else VALUE
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


@cache
def all_literals() -> frozenset[str]:
    rooms = ("rollmill", "blocks", "tasks", "flows", "deployments")
    sources = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return frozenset(" ".join(text.split()) for path in sources for text in literals(path.read_text()))


def is_in_sources(message: str) -> bool:
    """Return whether one literal in the sources has the fixed words of a message, in their order."""
    fixed = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    assert sum(map(len, fixed)) >= 12, f"too few fixed words to look for: {message!r}"
    pattern = re.compile(".*".join(fixed))
    return any(pattern.search(text) for text in all_literals())


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message: str) -> None:
    assert is_in_sources(message)


def test_unknown_messages_are_not_in_the_source() -> None:
    assert len(QUOTED) > 50
    assert len(set(QUOTED)) == len(QUOTED)
    assert not is_in_sources("no server replies at …: …")
    assert not is_in_sources("… at no server answers: …")  # the same words in another order


def test_texts_in_parts_are_put_together(tmp_path: Path) -> None:
    source = 'raise E(\n    f"cannot read {path}: {error}; "\n    "mend it"\n)\nx = "whole"\n'
    assert sorted(literals(source)) == ["cannot read \0: \0; mend it", "whole"]
