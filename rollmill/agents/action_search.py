"""Find actions in an answer by the regular expression of a configuration, for a limited time.

Both may be somebody else's: an expression such as `(a+)+$` takes for ever on an answer that is made for it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]  # it has no types

LIMIT_S = 10.0
"""A thousand times what an expression for blocks of code needs, on a busy machine, too."""


class ActionSearchError(Exception):
    """The expression did not come to an end with an answer."""


class ActionSearch:
    """What of `re` mini-swe-agent's parser uses."""

    DOTALL = re.DOTALL

    @staticmethod
    def findall(pattern: str, text: str, flags: int) -> list[Any]:
        """As `re.findall`. Raises `ActionSearchError` after `LIMIT_S`."""
        try:
            found: list[Any] = _compiled(pattern, flags).findall(text, timeout=LIMIT_S, concurrent=True)
        except (TimeoutError, MemoryError) as error:
            what = "takes too much memory" if isinstance(error, MemoryError) else f"takes more than {LIMIT_S:g} s"
            raise ActionSearchError(
                f"model.action_regex {what} on an answer of {len(text):,} characters: write it without repetitions in "
                f"repetitions, as in (a+)+: {pattern[:200]!r}"
            ) from None
        return found

    @staticmethod
    def groups(pattern: str) -> int:
        """How many groups it has. Raises `ValueError` for what is no regular expression."""
        try:
            count: int = re.compile(pattern, re.DOTALL).groups
            _compiled(pattern, re.DOTALL)
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise ValueError(str(error) or type(error).__name__) from None
        return count


@lru_cache(maxsize=64)
def _compiled(pattern: str, flags: int) -> Any:
    return regex.compile(pattern, (regex.DOTALL if flags & re.DOTALL else 0) | regex.VERSION0)
