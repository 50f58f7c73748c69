"""Extracts the summary at the end of a test run's output."""

from __future__ import annotations

import re

# Possessive quantifiers, no match inside a number: the code under test writes these lines, and may make them long.
_TIMES = re.compile(r"(?<!\d)(?:\d++(?:\.\d++)?\s*+(?:ns|us|µs|ms|s|sec|secs|seconds?|m|min|minutes?)\b|\d++\.\d++)")
_LINES = 3


def summary(output: str) -> list[str]:
    """Return the last three lines that are not blank, with all times replaced by `#`.

    There test runners print the number of tests: `Ran 12 tests in #` and `OK`, `== 12 passed in # ==`,
    `[  PASSED  ] 12 tests.` A test run has passed if its return code is 0 and its summary is that of the start commit:
    code under test that exits with 0 early prints none.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return [_TIMES.sub("#", line) for line in lines[-_LINES:]]
