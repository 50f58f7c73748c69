"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]

_BLOCK = re.compile(
    r'^(?:<!-- run(?:: leaves (?P<leaves>.*?))? -->\n(?P<runs>))?```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    language: str
    title: str | None
    """The name of the file that it is."""
    code: str
    runs: bool
    """Whether the page says that it is run: `<!-- run -->` before it."""
    leaves: list[str]
    """The files that are there afterwards."""

    def commands(self) -> Iterator[str]:
        """The command lines, without comments; what is continued is one."""
        for line in self.code.replace("\\\n", " ").splitlines():
            if line.strip() and not line.strip().startswith("#"):
                yield " ".join(shlex.quote(word) for word in shlex.split(line, comments=True))


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    return [
        Block(page, found["language"], found["title"], found["code"], found["runs"] is not None,
              (found["leaves"] or "").split())
        for found in _BLOCK.finditer(page.read_text())
    ]  # fmt: skip


def name(page: Path) -> str:
    """A page as tests name it."""
    return str(page.relative_to(ROOT))
