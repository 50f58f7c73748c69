"""Find actions in an answer with the configuration's regular expression, under a time limit.

Both may come from others: an expression such as `(a+)+$` backtracks forever on an adversarial answer.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]  # it has no types

LIMIT_S = 10.0
"""Seconds of one search: a thousand times what an expression for code blocks needs, on a busy machine, too."""
LONGEST = 4000
"""Maximum length of an expression, in characters."""
MOST_PARTS = 10_000
"""Maximum number of nodes with repetitions expanded, as `regex` compiles them: 260 bytes each."""
_SPACE_IN_COUNT = re.compile(r"(?:^|[^\\])(?:\\\\)*\{[\d,]*[\s#]")
_VERBOSE = re.compile(r"\(\?[A-Za-z-]*x")


class ActionSearchError(Exception):
    """The search took too much time or memory, or the expression is invalid."""


class ActionSearch:
    """The part of `re` that mini-swe-agent's parser uses; stands in for the module there."""

    DOTALL = re.DOTALL

    @staticmethod
    def findall(pattern: str, text: str, flags: int) -> list[Any]:
        """Search as `re.findall` does. Raises `ActionSearchError` after `LIMIT_S`."""
        try:
            matches: list[Any] = _compiled(pattern, flags).findall(text, timeout=LIMIT_S, concurrent=True)
        except ValueError as error:
            raise ActionSearchError(f"model.action_regex: {error}: {pattern[:200]!r}") from None
        except (TimeoutError, MemoryError) as error:
            what = "takes too much memory" if isinstance(error, MemoryError) else f"takes more than {LIMIT_S:g} s"
            raise ActionSearchError(
                f"model.action_regex {what} on an answer of {len(text):,} characters: write it without repetitions in "
                f"repetitions, as in (a+)+: {pattern[:200]!r}"
            ) from None
        return matches

    @staticmethod
    def groups(pattern: str) -> int:
        """Count the groups of an expression. Raises `ValueError` for an invalid or too large expression."""
        try:
            _compiled(pattern, re.DOTALL)
            count: int = re.compile(pattern, re.DOTALL).groups
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise ValueError(str(error) or type(error).__name__) from None
        return count


@lru_cache(maxsize=64)
def _compiled(pattern: str, flags: int) -> Any:
    if len(pattern) > LONGEST:
        raise ValueError(f"it has {len(pattern):,} characters: at most {LONGEST:,} are read")
    # With (?x), `regex` reads `{1, 2}` as a count and `re` as plain text: refuse what they read differently.
    if _VERBOSE.search(pattern) and _SPACE_IN_COUNT.search(pattern):
        raise ValueError("with (?x), a count is written without white space and comments in it")
    if _parts(importlib.import_module("re._parser").parse(pattern, flags)) > MOST_PARTS:
        raise ValueError(f"with its repetitions written out it has more than {MOST_PARTS:,} parts")
    return regex.compile(pattern, (regex.DOTALL if flags & re.DOTALL else 0) | regex.VERSION0)


def _parts(parsed: Any) -> int:
    """Count the nodes of `re`'s parse tree, each repetition expanded to its minimum count."""
    if isinstance(parsed, tuple) and len(parsed) == 2 and str(parsed[0]).endswith("_REPEAT"):
        least, _, repeated = parsed[1]
        return max(1, int(least)) * _parts(repeated)
    if isinstance(parsed, list | tuple) or hasattr(parsed, "data"):
        return sum(map(_parts, parsed)) or 1
    return 1
