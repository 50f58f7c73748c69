"""Pages of the root: `<!-- page README.md up to ## More -->` becomes that text, with links relative to docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"^<!-- page (\w+\.md)(?: up to (.+))? -->$", re.MULTILINE)
_LINKS = {"](docs/": "](", "](CONTRIBUTING.md)": "](contributing.md)", "](CHANGELOG.md)": "](changelog.md)"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the text of the root's pages in the place of their marks."""
    return _MARK.sub(lambda mark: root_page(mark[1], mark[2]), markdown)


def root_page(name: str, end: str | None) -> str:
    """Return a page of the repository's root, up to a line if one is given, with its links relative to docs/."""
    text = (ROOT / name).read_text()
    if end is not None:
        text = text.partition(f"\n{end}\n")[0]
    for link, target in _LINKS.items():
        text = text.replace(link, target)
    return text
