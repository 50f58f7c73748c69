"""Extract the answer from a completion: remove the reasoning, then read the `<answer>` tags.

All verifiers use it. There are two readings: `last` takes the last pair of tags after the reasoning, as a person would,
and `first` takes the first pair anywhere, the reasoning included.
"""

from __future__ import annotations

import re
from typing import Literal

OPEN = "<answer>"
CLOSE = "</answer>"

AnswerReading = Literal["last", "first"]
"""The pair of tags that is judged: the last one after the reasoning that holds an answer, or the first in the text."""

# Marks around reasoning that servers without a reasoning parser leave in the text. XML-like ones are used by DeepSeek,
# Qwen and in prompts; the others by Magistral, Kimi, Sky-T1, Cohere, Seed-OSS, Gemma and gpt-oss.
_NAMES = r"(?:[a-z]{1,12}[:_])?(?:think(?:ing)?|thoughts?|reasoning|scratchpad|inner_monologue)"
_BEGIN = (
    rf"<\s*{_NAMES}\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<unused94>thought|"
    r"<\|channel\|>\s*(?:analysis|commentary)\b|<\|channel>thought\b"
)
_END = (
    rf"<\s*/\s*{_NAMES}\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>|"
    r"<\|channel\|>\s*final\s*(?:<\|[^|<>\n]{1,40}\|>[^|<>\n]{0,40})?<\|message\|>|<channel\|>"
)
_MARK_START = re.compile(r"[<\[◁]")  # searched first: trying forty alternatives at each character would be slow
_THOUGHT_MARK = re.compile(rf"(?P<end>{_END})|(?P<begin>{_BEGIN})", re.IGNORECASE)
# gpt-oss's marks after a server with `skip_special_tokens`.
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z])")
_BARE_FINAL = "assistantfinal"
_TAG = re.compile(r"<\s*(?P<close>/?)\s*answer\s*>", re.IGNORECASE)
_TAG_WORD = re.compile(r"\s{0,3}(?:`|'|\")?\s{0,3}tags?\b", re.IGNORECASE)
_QUOTES = frozenset("`'\"")
_NO_ANSWER = re.compile(r"[\s.…_*\-]*|\[?\s*(?:your |the )?(?:final )?answer(?: here| goes here)?\s*\]?", re.IGNORECASE)
_END_TOKEN = re.compile(r"(?:<\|[A-Za-z_]{1,20}\|>|<｜[^｜<>]{1,30}｜>|</s>|<eos>|<end_of_turn>)\Z")
_LONGEST_END_TOKEN = 40


def after_thoughts(completion: str) -> str | None:
    """Return a completion's text after its reasoning, less end-of-turn tokens; None if the reasoning never ends.

    A completion may begin within the reasoning, since chat templates put the opening mark into the prompt.
    """
    bare = _BARE_CHANNEL.match(completion)
    if bare:
        _, final, completion = completion.rpartition(_BARE_FINAL)
        if not final:
            return None
    start, is_open = 0, False
    marks = (_THOUGHT_MARK.match(completion, bracket.start()) for bracket in _MARK_START.finditer(completion))
    for mark in filter(None, marks):
        is_open = mark["begin"] is not None
        if not is_open:
            start = mark.end()
    return None if is_open else _without_end_tokens(completion[start:])


def tagged_answer(completion: str, reading: AnswerReading = "last") -> str | None:
    """Return the stripped text in the pair of tags that is judged; None if there is none.

    A pair without a closing tag extends to the end, since servers cut at the stop string `</answer>`. The reading
    `last` skips pairs that are empty or a placeholder (`...`), and tags that are only mentioned ("in <answer> tags").
    If the text ends with such a pair and no other pair has an answer, the answer is empty.
    """
    if reading == "first":
        return _first_pair(completion)
    text = after_thoughts(completion)
    if text is None:
        return None
    return _last_pair(text)


def answer_or_all(completion: str, reading: AnswerReading = "last") -> str:
    """Return the tagged answer if there is one, else all text after the reasoning, stripped.

    It is empty if the reasoning never ends.
    """
    answer = tagged_answer(completion, reading)
    if answer is not None:
        return answer
    text = completion if reading == "first" else _TAG.sub(" ", after_thoughts(completion) or "")
    return encodable(text.strip())


def encodable(text: str) -> str:
    """Replace every lone surrogate in `text`, which UTF-8 and therefore JSON cannot hold, by `?`."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def quote(text: str, limit: int = 80) -> str:
    """Return `text` quoted on one line for a message, truncated to `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _first_pair(completion: str) -> str | None:
    start = completion.find(OPEN)
    if start < 0:
        return None
    start += len(OPEN)
    end = completion.find(CLOSE, start)
    return encodable(completion[start : end if end >= 0 else None].strip())


def _last_pair(text: str) -> str | None:
    answer: str | None = None
    opened: re.Match[str] | None = None
    is_empty, end = False, len(text.rstrip())  # whether the text ends with a pair that has no answer
    for tag in _TAG.finditer(text):
        if not tag["close"]:
            opened = None if _is_mentioned(text, tag) else tag
        elif opened:
            content = text[opened.end() : tag.start()]
            is_empty = _NO_ANSWER.fullmatch(content) is not None and tag.end() >= end
            answer = answer if _NO_ANSWER.fullmatch(content) else content
            opened = None
    if opened:
        rest = text[opened.end() :]
        is_empty = not rest.strip()
        answer = answer if is_empty else rest
    if answer is None:
        return "" if is_empty else None
    return encodable(answer.strip())


def _without_end_tokens(text: str) -> str:
    """Remove end-of-turn tokens such as `<|im_end|>`, which some servers leave at the end of the text."""
    text = text.rstrip()
    while end := _END_TOKEN.search(text, max(0, len(text) - _LONGEST_END_TOKEN)):
        text = text[: end.start()].rstrip()
    return text


def _is_mentioned(text: str, tag: re.Match[str]) -> bool:
    """Return whether an opening tag is only mentioned: it is quoted, or the word "tag" follows."""
    quote = text[tag.start() - 1 : tag.start()]
    is_quoted = quote in _QUOTES and text.startswith(quote, tag.end()) if quote else False
    return is_quoted or _TAG_WORD.match(text, tag.end()) is not None
