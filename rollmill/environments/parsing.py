"""Extract blocks from a completion after its reasoning, in time linear in the text's length."""

from __future__ import annotations

import re

from rollmill.verifiers.answer_tag import after_thoughts, encodable

_BRACES = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""Return the stripped content of the last non-empty `\boxed{...}` with matching braces; None without one."""
    opened: list[int | None] = []
    last, begin = None, -1
    text = after_thoughts(text) or ""
    for mark in _BRACES.finditer(text):
        if mark[0] == "\\boxed{":
            opened.append(mark.end())
        elif mark[0] == "{":
            opened.append(None)
        elif mark[0] == "}" and opened:
            start = opened.pop()
            # Boxes are closed from the inside out: a later end with an earlier start is an outer box, which is skipped.
            if start is not None and start > begin and (content := text[start : mark.start()].strip()):
                last, begin = content, start
    return None if last is None else encodable(last)


def last_python(text: str) -> str | None:
    """Return the last closed block between a line "```python" and a line "```"; None without one."""
    last: list[str] | None = None
    lines: list[str] | None = None
    for line in (after_thoughts(text) or "").split("\n"):
        fence = line.strip()
        if fence == "```python":
            lines = []
        elif fence == "```":
            last, lines = (last if lines is None else lines), None
        elif lines is not None:
            lines.append(line)
    return None if last is None else encodable("\n".join(last) + "\n")


def last_tagged(text: str, *tags: str) -> tuple[str, str] | None:
    """Return tag and stripped content of the last non-empty `<tag>...</tag>` of any of the tags; None without one."""
    answer = after_thoughts(text) or ""
    ends = [(pairs[-1][0], tag, pairs[-1][1]) for tag in tags if (pairs := _pairs(answer, tag))]
    return max(ends)[1:] if ends else None


def all_tagged(text: str, tag: str) -> list[str]:
    """Return the stripped contents of all non-empty `<tag>...</tag>`, in their order."""
    return [content for _, content in _pairs(after_thoughts(text) or "", tag)]


def _pairs(text: str, tag: str) -> list[tuple[int, str]]:
    """Return the end position and the content of each pair of tags."""
    pairs, end = [], 0
    for piece in text.split(f"</{tag}>")[:-1]:
        end += len(piece) + len(tag) + 3
        _, opening, content = piece.rpartition(f"<{tag}>")
        if opening and content.strip():
            pairs.append((end, encodable(content.strip())))
    return pairs
