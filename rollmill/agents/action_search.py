"""Find actions in an answer by the regular expression of a configuration, for a limited time.

Both may be somebody else's: an expression such as `(a+)+$` takes for ever on an answer that is made for it.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]  # it has no types

LIMIT_S = 10.0
"""A thousand times what an expression for blocks of code needs, on a busy machine, too."""
LONGEST = 4000
"""Characters of an expression."""
MOST_PARTS = 10_000
"""Parts of an expression with those that are repeated written out, as `regex` does: 260 bytes each."""
_SPACE_IN_COUNT = re.compile(r"(?:^|[^\\])(?:\\\\)*\{[\d,]*[\s#]")
_VERBOSE = re.compile(r"\(\?[A-Za-z-]*x")


class ActionSearchError(Exception):
    """The expression did not come to an end with an answer."""


class ActionSearch:
    """What of `re` mini-swe-agent's parser uses."""

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
        """Return how many groups it has. Raises `ValueError` for what is no regular expression, or too large a one."""
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
    if _VERBOSE.search(pattern) and _SPACE_IN_COUNT.search(pattern):  # a count to `regex`, and plain text to `re`
        raise ValueError("with (?x), a count is written without white space and comments in it")
    if _parts(importlib.import_module("re._parser").parse(pattern, flags)) > MOST_PARTS:
        raise ValueError(f"with its repetitions written out it has more than {MOST_PARTS:,} parts")
    return regex.compile(pattern, (regex.DOTALL if flags & re.DOTALL else 0) | regex.VERSION0)


def _parts(parsed: Any) -> int:
    """Return how many parts what `re` has parsed has, with the fewest repetitions of each written out."""
    if isinstance(parsed, tuple) and len(parsed) == 2 and str(parsed[0]).endswith("_REPEAT"):
        least, _, repeated = parsed[1]
        return max(1, int(least)) * _parts(repeated)
    if isinstance(parsed, list | tuple) or hasattr(parsed, "data"):
        return sum(map(_parts, parsed)) or 1
    return 1
