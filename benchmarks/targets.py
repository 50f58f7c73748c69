"""What a benchmark must reach."""

from __future__ import annotations

import argparse
import sys


class Targets:
    """Compares figures with targets, says how each came out, and makes the exit code."""

    def __init__(self) -> None:
        self._missed = 0

    def at_least(self, what: str, value: float, bound: float) -> None:
        """`value` must not be smaller than `bound`."""
        self._judge(f"{what}: {value:,.3g}, at least {bound:,g} wanted", reached=value >= bound)

    def at_most(self, what: str, value: float, bound: float) -> None:
        """`value` must not be greater than `bound`."""
        self._judge(f"{what}: {value:,.3g}, at most {bound:,g} wanted", reached=value <= bound)

    def _judge(self, line: str, *, reached: bool) -> None:
        self._missed += not reached
        print(f"{'reached' if reached else 'MISSED '}  {line}")

    def end(self, *, check: bool) -> None:
        """End the process with code 1 where a target was missed and that was asked for."""
        sys.exit(1 if check and self._missed else 0)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="end with code 1 when a target is missed")
    return parser
