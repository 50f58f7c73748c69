"""No two public classes of the project have the same name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("rollmill", "tasks", "blocks", "flows", "deployments")


def test_no_public_class_name_is_used_twice():
    paths = defaultdict(list)
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
                paths[statement.name].append(str(path.relative_to(ROOT)))
    assert len(paths) > 300
    assert {name: where for name, where in paths.items() if len(where) > 1} == {}
