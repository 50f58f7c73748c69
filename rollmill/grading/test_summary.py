"""How a passed test is recognised."""

from __future__ import annotations

import re

# Possessive, and never begun within a number: code under test writes these lines, and may make them long.
_TIMES = re.compile(r"(?<!\d)(?:\d++(?:\.\d++)?\s*+(?:ns|us|µs|ms|s|sec|secs|seconds?|m|min|minutes?)\b|\d++\.\d++)")
_LINES = 3


def summary(output: str) -> list[str]:
    """Return the last three lines that are not blank, all times in them replaced by `#`.

    That is where the runners of tests say how many there were: `Ran 12 tests in #` and `OK`, `== 12 passed in # ==`,
    `[  PASSED  ] 12 tests.` A test run has passed where its return code is 0 and its summary is that of the start
    commit: code under test that ends the process with 0 before its time has none.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return [_TIMES.sub("#", line) for line in lines[-_LINES:]]
