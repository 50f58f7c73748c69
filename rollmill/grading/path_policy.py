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
    """Why these changes are not allowed; None where they all are.

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
        if path in patterns:
            continue
        if any(_RESERVED.fullmatch(name) for name in path.split("/")):
            return f"{path} has a name that is read by Python, pytest or git themselves"
        if change.status == "A" and _hides_a_module(path):
            return f"{path} would hide a module of Python's standard library"
    return None


def _fits(pattern: str, path: str) -> bool:
    """Whether a pattern fits a whole path, in time that is at most the product of their lengths.

    Keeps all places in the pattern at which a match may be: a regular expression of the same meaning tries one after
    the other, and never ends on `**/**/**/...` and a path that is made for it.
    """
    pieces = _pieces(pattern)
    places = _opened(pieces, {0})
    for character in path:
        further = set()
        for place in places:
            piece = pieces[place] if place < len(pieces) else None
            if piece in ("**", _FOLDERS) or (piece == "*" and character != "/"):
                further.add(place)
            ends = piece == _FOLDERS and character == "/"
            if ends or piece == character or (piece == "?" and character != "/"):
                further.add(place + 1)
        places = _opened(pieces, further)
    return len(pieces) in places


def _opened(pieces: Sequence[str], places: set[int]) -> set[int]:
    """With the places behind pieces that may stand for nothing."""
    waiting = list(places)
    while waiting:
        place = waiting.pop()
        passed = _PASSED.get(pieces[place], ()) if place < len(pieces) else ()
        for further in {place + step for step in passed} - places:
            places.add(further)
            waiting.append(further)
    return places


@cache
def _pieces(pattern: str) -> tuple[str, ...]:
    """What stands for more than itself, and all other characters."""
    found = _PIECES.findall(pattern + ("**" if pattern.endswith("/") else ""))
    parts = ((piece, _FOLDERS) if piece == "**/" else (piece,) if piece[0] in "*?" else piece for piece in found)
    return tuple(part for some in parts for part in some)


def _hides_a_module(path: str) -> bool:
    if not path.endswith(_MODULE_ENDS):
        return False
    file = PurePosixPath(path)
    name = file.name.partition(".")[0]
    return (file.parent.name if name == "__init__" else name) in sys.stdlib_module_names
