"""Every test that the page on hostile text names exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.documentation.pages import ROOT

PAGE = ROOT / "docs/concepts/hostile-text.md"
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| text ")
]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`(tests/[^`]+)`", row[-1])})


def test_commands_run_elsewhere_have_a_reason_and_a_test() -> None:
    assert len(ROWS) >= 30
    for row in ROWS:
        assert len(row) == 5
        assert all(row)
        assert re.search(r"`tests/[\w/]+\.py(::\w+)?`", row[-1]), row


@pytest.mark.parametrize("named", NAMED)
def test_named_test_exists(named: str) -> None:
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    tests = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert tests
    assert not name or name in tests
