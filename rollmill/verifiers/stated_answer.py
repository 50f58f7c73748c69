r"""Find the final answer that a text states: `#### 42`, the last `\boxed{}`, "the answer is 42", bold text at the end.

A statement that hedges ("4 or 5", "4. Or 5", "maybe") or is retracted ("wait, ...") is an empty answer.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from rollmill.verifiers.answer_tag import encodable
from rollmill.verifiers.conclusion import remove_reason

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"^[ \t]*####(?!#)[ \t]*(?P<answer>\S[^\n]*)$", re.MULTILINE)
_BEGINS_AS_VALUE = re.compile(r"[-+−$€£\\*(\[{.0-9]")
_WORD_ANSWER = re.compile(r"[Aa](?:nswer|NSWER)")
_PHRASE = re.compile(
    r"\banswer\b(?:[ \t]+(?:to|for)[ \t][^.:\n]{0,80}?)?[*_ \t]{0,8}"
    r"(?::|=|\b(?:is|are|equals|would be|will be|should be|becomes|comes (?:out )?to)\b)[*_:\s]{0,12}",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^#{1,6}[ \t]+\**(?:the[ \t]+)?(?:final[ \t]+)?answer\**:?\**[ \t]*\n\s{0,8}", re.IGNORECASE | re.MULTILINE
)
_SENTENCE_END = re.compile(r"[.!?](?=[\"')*\]]{0,4}(?:\s|$))|\n|$")
_JSON = re.compile(
    r'"(?:final_?answer|answer|result|solution)"\s*:\s*(?P<value>"(?:[^"\\\n]|\\.){0,300}"|[-+0-9.eE]{1,100}|true|false)\s*(?=[,}])',
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*(?P<answer>[^*\n]{1,300})\*\*")

_MARKUP = r"[\s*_$)\]}\\.,;:!–—-]"
_HEDGE_AFTER = re.compile(
    rf"{_MARKUP}{{0,40}}(?:or(?!,?\s+(?:equivalently|simply|in other words|about|approximately))|"
    r"alternatively|maybe|perhaps|possibly|otherwise|but|unless|if)\b",
    re.IGNORECASE,
)
_HEDGE_BEFORE = re.compile(
    r"(?:\b(?:or|either|not|maybe|perhaps|possibly|than|least|most|between|except|unlike|never|"
    r"(?:might|could|may) be|isnt|wrong)|"
    r"n't(?: be)?|(?:n't|\bnot) (?:think|believe|say|mean|sure|know)\b[^.\n]{0,40})[\s*_$(\[{\\:,]{0,20}$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|scratch that|on second thought|correction|i made an? (?:mistake|error)|"
    r"(?:this|that|it)(?:'s| is| was| seems| looks) (?:wrong|incorrect|not (?:right|correct))|"
    r"is (?:wrong|incorrect|not)|"
    r"should (?:have been|instead)|instead|let me (?:re-?\w+|try again|start over)|i was wrong|actually)\b",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s,;$*\\()\[\]&]*(?:(?:and|or|,)[\s,;$*\\()\[\]&]*)?")
_LAST_LINES = 2000
_MOST_PHRASES = 20


class Statement(NamedTuple):
    """An answer that a text states, with the span of the statement in characters."""

    text: str
    start: int
    end: int


def stated_answer(text: str) -> str | None:
    """Return the final answer that a text states by a mark or phrase; None if it states none.

    It is empty if the text hedges about it, or retracts it.
    """
    statements = [statement for find in (_boxed, _hashes, _json, _phrases) if (statement := find(text))]
    if not statements:
        return None
    # The last statement wins, whatever its form: models state intermediate results before it.
    last = max(statements, key=lambda statement: statement.start)
    return "" if is_doubtful(text, last) else encodable(last.text)


def bold_answer(text: str) -> str | None:
    """Return the last bold text on a text's last line; None if there is none, empty if the line hedges about it."""
    line = last_line(text)
    marks = list(_BOLD.finditer(line))
    if not marks:
        return None
    last = Statement(marks[-1]["answer"].strip(), marks[-1].start(), marks[-1].end())
    is_one_of_two = len(marks) > 1 and _BETWEEN.fullmatch(line[marks[-2].end() : marks[-1].start()]) is not None
    return "" if is_one_of_two or is_doubtful(line, last) else encodable(last.text)


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty or only markup, at most its last `_LAST_LINES` characters."""
    for line in reversed(text[-_LAST_LINES:].splitlines()):
        if line.strip(" \t`*_-\\[]()$"):
            return line.strip()
    return ""


def is_doubtful(text: str, statement: Statement) -> bool:
    """Return whether the text around a statement hedges about it, or retracts it."""
    after, before = text[statement.end :], text[max(0, statement.start - 80) : statement.start]
    is_asked = after.lstrip(" *_$`)").startswith("?")
    return bool(is_asked or _HEDGE_AFTER.match(after) or _HEDGE_BEFORE.search(before) or _TAKEN_BACK.search(after))


def boxes(text: str) -> list[Statement]:
    r"""Return every outermost non-empty `\boxed{...}` with matching braces, in time linear in the text's length."""
    opened: list[tuple[int, int] | None] = []
    statements: list[Statement] = []
    if "\\boxed" not in text and "\\fbox" not in text:
        return statements
    for mark in _BRACES.finditer(text):
        if mark[0].startswith(("\\boxed", "\\fbox")):
            opened.append((mark.start(), mark.end()))
        elif mark[0] == "{":
            opened.append(None)
        elif mark[0] == "}" and opened and (span := opened.pop()):
            content = text[span[1] : mark.start()].strip()
            # An outer box replaces the boxes inside of it.
            while statements and statements[-1].start > span[0]:
                statements.pop()  # it is inside of this one
            if content:
                statements.append(Statement(content, span[0], mark.end()))
    return statements


def _boxed(text: str) -> Statement | None:
    found_boxes = boxes(text)
    if not found_boxes:
        return None
    last = found_boxes[-1]
    if (
        len(found_boxes) > 1
        and found_boxes[-2].text != last.text
        and _BETWEEN.fullmatch(text[found_boxes[-2].end : last.start])
    ):
        return _side_by_side(text, found_boxes)
    return last


def _side_by_side(text: str, adjacent: list[Statement]) -> Statement:
    """Join boxes with a comma or "and" between them to one list; empty if an "or" makes one of them an alternative."""
    first = len(adjacent) - 1
    while first and (between := text[adjacent[first - 1].end : adjacent[first].start]) and _BETWEEN.fullmatch(between):
        if re.search(r"\bor\b", between):
            return Statement("", adjacent[-1].start, adjacent[-1].end)
        first -= 1
    return Statement(", ".join(box.text for box in adjacent[first:]), adjacent[first].start, adjacent[-1].end)


def _hashes(text: str) -> Statement | None:
    """Return the last `#### 42`; earlier lines of this form count only if they begin as a value, not as a heading."""
    last, end = None, len(text.rstrip())
    if "####" not in text:
        return None
    for match in _HASHES.finditer(text):
        is_last = match.end() >= end
        if is_last or _BEGINS_AS_VALUE.match(match["answer"]):
            last = Statement(match["answer"].strip(), match.start(), match.end())
    return last


def _json(text: str) -> Statement | None:
    """Return the answer in the last JSON object with a key such as `answer`."""
    matches = list(_JSON.finditer(text)) if "{" in text else []
    if not matches:
        return None
    value = matches[-1]["value"]
    if value.startswith('"'):
        try:
            value = str(json.loads(value))
        except ValueError:  # LaTeX with single backslashes, as models write it
            value = value[1:-1]
    return Statement(value.strip(), matches[-1].start(), matches[-1].end())


def _phrases(text: str) -> Statement | None:
    """Return the last statement of the form "the answer is 42", or below a heading "Answer"."""
    phrases = (_PHRASE.match(text, word.start()) for word in _WORD_ANSWER.finditer(text))
    headings = _HEADING.finditer(text) if "#" in text else ()
    matches = sorted((*filter(None, phrases), *headings), key=re.Match.start)
    statements = (_after_phrase(text, match) for match in reversed(matches[-_MOST_PHRASES:]))
    return next((statement for statement in statements if statement), None)


def _after_phrase(text: str, match: re.Match[str]) -> Statement | None:
    """Return the rest of the sentence after a phrase; None if it is empty."""
    following = text[match.end() : match.end() + _LAST_LINES]
    end = _SENTENCE_END.search(following)
    assert end is not None  # the end of the text is one
    content = remove_reason(following[: end.start()])
    if not content.strip(" *_$`"):
        return None
    return Statement(content.strip(), match.start(), match.end() + len(content))
