"""Which files a change may touch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import PurePosixPath

from rollmill.grading.patch import Change

_RESERVED = re.compile(r"(conftest\.py|(site|user)customize\.py|.*\.pth|\.git.*)")
"""Names that Python, pytest or git read of themselves, wherever they lie."""
_MODULE_ENDS = (".py", ".pyc", ".so")
_PIECES = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANINGS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def refusal(changes: Iterable[Change], patterns: Sequence[str]) -> str | None:
    """Why these changes are not allowed; None where they all are.

    A file may be changed, added or deleted where a pattern fits its whole path from the repository's root: `*` and
    `?` stay within a name, `**` does not, a pattern that ends in `/` is the folder. Never allowed, unless a pattern
    names that very file: what Python, pytest and git read of themselves (`conftest.py`, `sitecustomize.py`,
    `usercustomize.py`, `*.pth`, `.git*`), and new files that hide a module of Python's standard library. Symbolic
    links are never allowed.
    """
    for change in changes:
        path = change.path
        if not any(_pattern(pattern).fullmatch(path) for pattern in patterns):
            what = {"A": "added", "D": "deleted"}.get(change.status, "changed")
            return f"{path} was {what}, and only {', '.join(patterns) or 'nothing'} may be"
        if change.mode == "120000":
            return f"{path} is a symbolic link"
        if path in patterns:
            continue
        if any(_RESERVED.fullmatch(name) for name in path.split("/")):
            return f"{path} has a name that is read by Python, pytest or git themselves"
        if change.status == "A" and _hides_a_module(path):
            return f"{path} would hide a module of Python's standard library"
    return None


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    whole = pattern + ("**" if pattern.endswith("/") else "")
    return re.compile(
        "".join(_MEANINGS.get(piece, re.escape(piece)) for piece in _PIECES.findall(whole)), flags=re.DOTALL
    )


def _hides_a_module(path: str) -> bool:
    if not path.endswith(_MODULE_ENDS):
        return False
    file = PurePosixPath(path)
    name = file.name.partition(".")[0]
    return (file.parent.name if name == "__init__" else name) in sys.stdlib_module_names
