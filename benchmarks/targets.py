"""Compares a benchmark's figures with its targets."""

from __future__ import annotations

import argparse
import sys


class Targets:
    """Compares figures with targets, prints the results, and sets the exit code."""

    def __init__(self) -> None:
        self._missed = 0

    def at_least(self, what: str, value: float, bound: float) -> None:
        """Require `value` >= `bound`."""
        self._judge(f"{what}: {value:,.3g}, at least {bound:,g} wanted", reached=value >= bound)

    def at_most(self, what: str, value: float, bound: float) -> None:
        """Require `value` <= `bound`."""
        self._judge(f"{what}: {value:,.3g}, at most {bound:,g} wanted", reached=value <= bound)

    def _judge(self, line: str, *, reached: bool) -> None:
        if not reached:
            self._missed += 1
        print(f"{'reached' if reached else 'MISSED '}  {line}")

    def end(self, *, check: bool) -> None:
        """Exit, with code 1 if `check` is set and a target was missed."""
        sys.exit(1 if check and self._missed else 0)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="end with code 1 when a target is missed")
    return parser
