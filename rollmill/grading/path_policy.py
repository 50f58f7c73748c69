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
_FOLDERS = "folders/"
"""Within what `**/` stands for: it is over after a `/`."""
_PASSED = {"*": (1,), "**": (1,), "**/": (1, 2)}
"""What may stand for nothing, and how many places that leads further."""
_PIECES = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")


def refusal(changes: Iterable[Change], patterns: Sequence[str]) -> str | None:
    """Return why these changes are not allowed; None where they all are.

    A file may be changed, added or deleted where a pattern fits its whole path from the repository's root: `*` and
    `?` stay within a name, `**` does not, a pattern that ends in `/` is the folder. Never allowed, unless a pattern
    names that very file: what Python, pytest and git read of themselves (`conftest.py`, `sitecustomize.py`,
    `usercustomize.py`, `*.pth`, `.git*`), and new files that hide a module of Python's standard library. Symbolic
    links are never allowed.
    """
    for change in changes:
        path = change.path
        if not any(_fits(pattern, path) for pattern in patterns):
            what = {"A": "added", "D": "deleted"}.get(change.status, "changed")
            return f"{path} was {what}, and only {', '.join(patterns) or 'nothing'} may be"
        if change.mode == "120000":
            return f"{path} is a symbolic link"
        if path in patterns:  # named in full: whoever wrote the problem wants it changed
            continue
        if any(_RESERVED.fullmatch(name) for name in path.split("/")):
            return f"{path} has a name that is read by Python, pytest or git themselves"
        if change.status == "A" and _hides_a_module(path):
            return f"{path} would hide a module of Python's standard library"
    return None


def _fits(pattern: str, path: str) -> bool:
    """Return whether a pattern fits a whole path, in time that is at most the product of their lengths.

    Keeps all places in the pattern at which a match may be: a regular expression of the same meaning tries one after
    the other, and never ends on `**/**/**/...` and a path that is made for it.
    """
    pieces = _pieces(pattern)
    positions = _skip_optional(pieces, {0})
    for character in path:
        # Every position of a piece that may stand for this character: it stays where the piece takes more of them
        # (`*`, `**`), and moves on where the piece is over.
        further = set()
        for position in positions:
            piece = pieces[position] if position < len(pieces) else None
            if piece in ("**", _FOLDERS) or (piece == "*" and character != "/"):
                further.add(position)
            ends = piece == _FOLDERS and character == "/"
            if ends or piece == character or (piece == "?" and character != "/"):
                further.add(position + 1)
        positions = _skip_optional(pieces, further)
    return len(pieces) in positions


def _skip_optional(pieces: Sequence[str], positions: set[int]) -> set[int]:
    """Add the positions behind pieces that may stand for nothing."""
    waiting = list(positions)
    while waiting:
        position = waiting.pop()
        passed = _PASSED.get(pieces[position], ()) if position < len(pieces) else ()
        for further in {position + step for step in passed} - positions:
            positions.add(further)
            waiting.append(further)
    return positions


@cache
def _pieces(pattern: str) -> tuple[str, ...]:
    """Split a pattern into what stands for more than itself, and all other characters one by one.

    `**/` makes two pieces: it may stand for nothing at all, or for folders, which end with a `/` of the path.
    """
    tokens = _PIECES.findall(pattern + ("**" if pattern.endswith("/") else ""))
    parts = ((piece, _FOLDERS) if piece == "**/" else (piece,) if piece[0] in "*?" else piece for piece in tokens)
    return tuple(part for some in parts for part in some)


def _hides_a_module(path: str) -> bool:
    if not path.endswith(_MODULE_ENDS):
        return False
    file = PurePosixPath(path)
    name = file.name.partition(".")[0]
    return (file.parent.name if name == "__init__" else name) in sys.stdlib_module_names
