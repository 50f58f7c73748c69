"""Where the answer stands in a completion: between the first `<answer>` and the `</answer>` after it."""

from __future__ import annotations

OPEN = "<answer>"
CLOSE = "</answer>"


def tagged_answer(completion: str) -> str | None:
    """The stripped text of the first pair of tags; None where no tag opens.

    A pair that is not closed reads to the end: servers cut at the stop string `</answer>`.
    """
    start = completion.find(OPEN)
    if start < 0:
        return None
    start += len(OPEN)
    end = completion.find(CLOSE, start)
    return encodable(completion[start : end if end >= 0 else None].strip())


def answer_or_all(completion: str) -> str:
    """The tagged answer where tags are, else the whole completion, stripped."""
    answer = tagged_answer(completion)
    return encodable(completion.strip()) if answer is None else answer


def encodable(text: str) -> str:
    """`text` with every lone surrogate, which UTF-8 and so JSON cannot hold, replaced by `?`."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def shown(text: str, limit: int = 80) -> str:
    """`text` as a quoted line for a message, cut at `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "...")
