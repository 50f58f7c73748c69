"""What stands in a completion: the last well-formed block counts, in time linear in the text's length."""

from __future__ import annotations

import re

from rollmill.verifiers.answer_tag import encodable

_BRACES = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The stripped content of the last `\boxed{...}` whose braces match and that is not empty; None for none."""
    opened: list[int | None] = []
    found, begin = None, -1
    for mark in _BRACES.finditer(text):
        if mark[0] == "\\boxed{":
            opened.append(mark.end())
        elif mark[0] == "{":
            opened.append(None)
        elif mark[0] == "}" and opened:
            start = opened.pop()
            if start is not None and start > begin and (content := text[start : mark.start()].strip()):
                found, begin = content, start
    return None if found is None else encodable(found)


def last_python(text: str) -> str | None:
    """The last closed block between a line "```python" and a line "```"; None for none."""
    found: list[str] | None = None
    lines: list[str] | None = None
    for line in text.split("\n"):
        fence = line.strip()
        if fence == "```python":
            lines = []
        elif fence == "```":
            found, lines = (found if lines is None else lines), None
        elif lines is not None:
            lines.append(line)
    return None if found is None else encodable("\n".join(found) + "\n")


def last_tagged(text: str, *tags: str) -> tuple[str, str] | None:
    """The tag and the stripped content of the last `<tag>...</tag>` that is not empty; None for none."""
    ends = [(pairs[-1][0], tag, pairs[-1][1]) for tag in tags if (pairs := _pairs(text, tag))]
    return max(ends)[1:] if ends else None


def all_tagged(text: str, tag: str) -> list[str]:
    """The stripped contents of all `<tag>...</tag>` that are not empty, in their order."""
    return [content for _, content in _pairs(text, tag)]


def _pairs(text: str, tag: str) -> list[tuple[int, str]]:
    """Where each pair ends, and what stands in it."""
    found, end = [], 0
    for piece in text.split(f"</{tag}>")[:-1]:
        end += len(piece) + len(tag) + 3
        _, opening, content = piece.rpartition(f"<{tag}>")
        if opening and content.strip():
            found.append((end, encodable(content.strip())))
    return found
