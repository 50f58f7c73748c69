"""The requests that every contender makes, and the line of figures that it prints.

Imports only the standard library: it is also used where rollmill is not installed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

MODEL = "scripted"
ROLLOUTS = 16
"""Per problem."""
TEMPERATURE = 1.0
TOP_P = 1.0
MAX_TOKENS = 64


class Work(NamedTuple):
    """The requests of a contender, and the server that they go to."""

    base_url: str
    requests: int
    in_flight: int
    folder: Path
    tokens: bool = False
    """Whether to request token ids and logprobs with every answer."""

    @property
    def problems(self) -> int:
        """Return the number of problems that the requests are for."""
        return -(-self.requests // ROLLOUTS)

    @property
    def prompts(self) -> list[str]:
        """One prompt per problem."""
        return [
            f"What is the last digit of {index}? Answer as <answer>digit</answer>." for index in range(self.problems)
        ]

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """The messages of every request: each problem's repeated by its number of rollouts."""
        prompts = self.prompts
        return [[{"role": "user", "content": prompts[index // ROLLOUTS]}] for index in range(self.requests)]

    def write_problems(self) -> Path:
        """Write the problems as a data set."""
        path = self.folder / "problems.jsonl"
        rows = ({"id": f"p{i}", "prompt": prompt, "answer": str(i % 10)} for i, prompt in enumerate(self.prompts))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path


def in_whole_problems(text: str) -> int:
    """Parse a number of requests, rounded up to whole problems."""
    return -(-int(text) // ROLLOUTS) * ROLLOUTS


def parser() -> argparse.ArgumentParser:
    """Build the command-line parser of a `Work`."""
    built = argparse.ArgumentParser(allow_abbrev=False)
    built.add_argument("--base_url", required=True)
    built.add_argument("--requests", type=in_whole_problems, required=True)
    built.add_argument("--in_flight", type=in_whole_problems, required=True)
    built.add_argument("--folder", type=Path, required=True)
    built.add_argument("--tokens", action="store_true", help="ask for the tokens of every answer")
    return built


def work_of(options: argparse.Namespace) -> Work:
    """Return the work of the command line."""
    return Work(options.base_url, options.requests, options.in_flight, options.folder, options.tokens)


def report(**figures: float) -> None:
    """Print the figures as the last line, which the benchmark reads."""
    print(json.dumps(figures), flush=True)
