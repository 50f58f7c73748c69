"""Decides which files a change may touch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import PurePosixPath

from rollmill.grading.patch import Change

_RESERVED = re.compile(r"(conftest\.py|(site|user)customize\.py|.*\.pth|\.git.*)")
"""Names that Python, pytest or git load automatically, in any folder."""
_MODULE_ENDS = (".py", ".pyc", ".so")
_FOLDERS = "folders/"
"""Piece for the folders that `**/` matches: it ends after a `/`."""
_SKIPS = {"*": (1,), "**": (1,), "**/": (1, 2)}
"""Pieces that match the empty string, and how many positions skipping one advances."""
_MOST_STEPS = 10_000
"""Steps of one pattern that are kept."""
_PIECES = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")


def refusal(changes: Iterable[Change], patterns: Sequence[str]) -> str | None:
    """Return why these changes are not allowed; None if they all are.

    A file may be changed, added or deleted if a pattern matches its whole path from the repository's root: `*` and
    `?` match within a name, `**` across folders, a pattern that ends in `/` matches all in the folder. Never allowed,
    unless a pattern is exactly that path: files that Python, pytest and git load automatically (`conftest.py`,
    `sitecustomize.py`, `usercustomize.py`, `*.pth`, `.git*`), and new files that shadow a module of Python's standard
    library. Symbolic links are never allowed.
    """
    for change in changes:
        path = change.path
        if not any(_matches(pattern, path) for pattern in patterns):
            what = {"A": "added", "D": "deleted"}.get(change.status, "changed")
            return f"{path} was {what}, and only {', '.join(patterns) or 'nothing'} may be"
        if change.mode == "120000":
            return f"{path} is a symbolic link"
        if path in patterns:  # named exactly: the problem's author intends this change
            continue
        if any(_RESERVED.fullmatch(name) for name in path.split("/")):
            return f"{path} has a name that is read by Python, pytest or git themselves"
        if change.status == "A" and _shadows_stdlib(path):
            return f"{path} would hide a module of Python's standard library"
    return None


def _matches(pattern: str, path: str) -> bool:
    """Return whether a pattern matches a whole path, in time of at most the product of their lengths."""
    simple = _simple(pattern)
    if simple:
        return simple.fullmatch(path) is not None
    automaton = _automaton(pattern)
    state = automaton.start
    for character in path:
        state = automaton.next_state(state, character)
        if not state:
            return False
    return automaton.ends_in(state)


class _Automaton:
    """Matches a pattern: a state is the set of all positions in the pattern at which a match may be.

    A regular expression with the same meaning backtracks, and never ends on `**/**/**/...` and an adversarial path.
    Steps are kept, since many paths take the same ones: of 50,000 long paths each character costs one look-up.
    """

    def __init__(self, pattern: str) -> None:
        self._pieces = _pieces(pattern)
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self.start = frozenset(_skip_optional(self._pieces, {0}))

    def ends_in(self, state: frozenset[int]) -> bool:
        """Return whether a path that leads to this state matches."""
        return len(self._pieces) in state

    def next_state(self, state: frozenset[int], character: str) -> frozenset[int]:
        """Return the state after a character; empty if no path with this beginning matches."""
        step = (state, character)
        after = self._steps.get(step)
        if after is None:
            if len(self._steps) >= _MOST_STEPS:
                self._steps.clear()
            after = self._steps[step] = frozenset(self._advance(state, character))
        return after

    def _advance(self, state: frozenset[int], character: str) -> set[int]:
        # From each position whose piece matches the character: stay if the piece may match more characters
        # (`*`, `**`), advance if the piece ends.
        reached = set()
        for position in state:
            piece = self._pieces[position] if position < len(self._pieces) else None
            if piece in ("**", _FOLDERS) or (piece == "*" and character != "/"):
                reached.add(position)
            ends = piece == _FOLDERS and character == "/"
            if ends or piece == character or (piece == "?" and character != "/"):
                reached.add(position + 1)
        return _skip_optional(self._pieces, reached)


@cache
def _simple(pattern: str) -> re.Pattern[str] | None:
    """Return a regular expression for a pattern with one wildcard, which cannot backtrack far; None for others."""
    pieces = _pieces(pattern)
    if sum(piece in _SKIPS for piece in pieces) > 1:
        return None
    wildcards = {"*": "[^/]*", "**": ".*", "**/": "(?:.*/)?", "?": "[^/]"}
    parts = _PIECES.findall(pattern + ("**" if pattern.endswith("/") else ""))
    return re.compile("".join(wildcards.get(part) or re.escape(part) for part in parts), re.DOTALL)


@cache
def _automaton(pattern: str) -> _Automaton:
    return _Automaton(pattern)


def _skip_optional(pieces: Sequence[str], positions: set[int]) -> set[int]:
    """Add, in place, the positions after pieces that match the empty string."""
    waiting = list(positions)
    while waiting:
        position = waiting.pop()
        skips = _SKIPS.get(pieces[position], ()) if position < len(pieces) else ()
        for skipped in {position + step for step in skips} - positions:
            positions.add(skipped)
            waiting.append(skipped)
    return positions


@cache
def _pieces(pattern: str) -> tuple[str, ...]:
    """Split a pattern into its wildcards and single characters.

    `**/` makes two pieces: it matches the empty string, or folders, which end with a `/` of the path.
    """
    pieces: list[str] = []
    for match in _PIECES.findall(pattern + ("**" if pattern.endswith("/") else "")):
        if match == "**/":
            pieces += (match, _FOLDERS)
        elif match[0] in "*?":
            pieces.append(match)
        else:
            pieces += match  # character by character
    return tuple(pieces)


def _shadows_stdlib(path: str) -> bool:
    if not path.endswith(_MODULE_ENDS):
        return False
    file = PurePosixPath(path)
    name = file.name.partition(".")[0]
    return (file.parent.name if name == "__init__" else name) in sys.stdlib_module_names
