r"""Verify multiple choice: extract the letter that a completion chooses."""

from __future__ import annotations

import re

from rollmill.problems.choices import Choices, fold_choice, read_choices
from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import answer_or_all, encodable, quote, tagged_answer
from rollmill.verifiers.registry import VerifierEntry
from rollmill.verifiers.stated_answer import bold_answer

ENTRY = VerifierEntry("choice", "ChoiceVerifier", "the letter of the right one of lettered choices", trusted=True)

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|textit)\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"[*`$]|(?<!\w)_{1,3}(?=\w)|(?<=[^\W_])_{1,3}(?!\w)|\\[()\[\]]")
_LEAD = r"(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+)?(?:final\s+|correct\s+|best\s+|right\s+)*"
_NOUN = r"(?:answer|option|choice)"
_COPULA = r"\s*(?:(?:is|was|are|would be|should be|must be|will be|seems to be|=|:|-)\s*)+"
_SUBJECT = rf"{_LEAD}{_NOUN}(?:\s+to\s+[^.:\n]{{1,60}}?|\s+here)?"
_WORDS = r"(?:therefore|thus|clearly|definitely|then|indeed|probably|most likely|likely|option|choice|letter|answer)"
_MARKED = r"[(\[]?\s*([A-Z])\s*[)\]]?(?![A-Za-z0-9'’&+-])"
_STATEMENTS = (
    re.compile(rf"{_SUBJECT}{_COPULA}(?:{_WORDS},?\s+|:\s*)*{_MARKED}", re.IGNORECASE),
    re.compile(
        rf"\b(?:i(?:'ll| will|'d| would)?\s+(?:choose|pick|select|go with|answer)|{_NOUN})\s+(?:{_WORDS}\s+)*{_MARKED}",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:\b(?:so|thus|therefore|hence|(?:which|that|this) leaves(?: only| us with)?|"
        r"i(?:'d| would)? (?:say|think|believe))"
        rf"(?:,|\s+that)?\s+(?:(?:it|that|this)(?:'s|\s+(?:is|must be|has to be|should be|would be))\s+)?|"
        rf"\b(?:it|that|this)\s+(?:must|has to) be\s+){_MARKED}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?<![A-Za-z0-9']){_MARKED}\s+(?:is|must be|would be)\s+(?:the\s+)?(?:\w+\s+)?(?:correct|right|{_NOUN})"
    ),
)
_ALONE = re.compile(
    rf"(?:{_SUBJECT}(?:{_COPULA})?|(?:option|choice|letter)\s*:?\s*)?[(\[]?\s*([A-Za-z])\s*(?:[)\]]\s*[.:,]?|[.:,])?",
    re.IGNORECASE,
)
_WITH_TEXT = re.compile(
    rf"(?:{_SUBJECT}(?:{_COPULA})?|(?:option|choice)\s*)?(?:[(\[]\s*([A-Za-z])\s*[)\]][.:]?|([A-Z])\s*[).:\-–—])\s*(.+)",
    re.IGNORECASE | re.DOTALL,
)
_SEVERAL = re.compile(
    r"(?<![A-Za-z0-9'’])[(\[]?([A-Z])[)\]]?\s*(?:,|/|&|\+|;|\bor\b|\band\b|\bor maybe\b|\beither\b)+\s*"
    r"(?:(?:or|and|possibly|maybe|perhaps|even)\s+)*[(\[]?([A-Z])[)\]]?(?![A-Za-z0-9'’])"
)
_HEDGE = re.compile(
    r"(?:[\s).\],;:(]*(?i:or|alternatively|possibly|maybe|perhaps)\b|"
    r"[\s)\],;:(]*(?i:and|but|although|though|however|unless)\b)[^A-Z]*[(\[]?([A-Z])[)\]]?(?![A-Za-z0-9'’])"
)
"""Another letter after a letter, in the same sentence or in the next one ("B. Or C.")."""
_NOT = re.compile(r"(?:\bnot|n't|\bnever)\s*(?:the\s+)?(?:[(\[]?\s*)?$|\bis not\b", re.IGNORECASE)
_IF = re.compile(r"\b(?:if|whether|is it|suppose|assume)\b[^,.\n]*$", re.IGNORECASE)
_QUESTION_MARK = re.compile(r"[\s)\].*]*\?")
_NO_CHOICE = "no choice is named"
_LONGEST_LINE = 2000
_LONGEST = 20_000
"""Characters at the end of a completion that are searched, if it is prose."""


class ChoiceVerifier:
    r"""Accepts a completion that chooses the right one of the problem's choices, by its letter or its text.

    Choices are in `choices`, `options` or columns `A`, `B`, ..., see `read_choices`; the ground truth is a letter, a
    label, a 0-based number, or a choice's text. The answer is the content of the last `\boxed{}` or of the `<answer>`
    pair, or the last choice that the completion states. Two letters, or a hedged one, are no answer.
    """

    name = "choice"
    version = "1"
    shows_choices = True

    def problem_fault(self, problem: Problem) -> str | None:
        """Return why the problem has no choices, or no ground truth among them; else None."""
        try:
            _read_truth(problem)
        except ValueError as fault:
            return str(fault)
        return None

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `ValueError`, naming the instance, for a problem without choices or answer."""
        try:
            choices, truth = _read_truth(problem)
        except ValueError as fault:
            raise ValueError(f"{problem.instance_id}: {fault}") from None
        answer, reason = read_choice(completion, choices)
        if answer is None:
            return Verdict(verifier="choice@1", status="unparseable", reason=reason, reward=0.0, success=False)
        right = answer == truth
        return Verdict(
            verifier="choice@1",
            status="ok",
            answer=answer,
            distance=0.0 if right else 1.0,
            reward=1.0 if right else 0.0,
            success=right,
        )


def read_choice(completion: str, choices: Choices) -> tuple[str | None, str | None]:
    """Return the letter that a completion chooses and None, or None and the reason."""
    text = answer_or_all(completion)
    tagged = tagged_answer(completion) is not None
    boxes = _BOXED.findall(text)
    if boxes:
        return _read_answer(boxes[-1], choices)
    if tagged:
        return _read_answer(text, choices)
    letter, reason = _read_prose(_strip_markup(text), choices)
    if letter is None and reason == _NO_CHOICE and (bold := bold_answer(text)):
        letter = choices.letter_of_text(_strip_markup(bold))
    return letter, None if letter else reason


def _read_truth(problem: Problem) -> tuple[Choices, str]:
    choices = read_choices(problem.fields)
    if choices is None:
        raise ValueError("there are no choices: a column choices or options, or columns A, B, ...")
    if problem.answer is None or not problem.answer.strip():
        raise ValueError("there is no answer")
    letter = choices.letter_of(problem.answer)
    if letter is None:
        raise ValueError(f"answer {quote(problem.answer)} is none of the {len(choices.texts)} choices")
    return choices, letter


def _strip_markup(text: str) -> str:
    text = _COMMAND.sub(r"\1", _COMMAND.sub(r"\1", text))
    lines = (" ".join(line.split()) for line in _MARKUP.sub("", text[-_LONGEST:]).splitlines())
    return "\n".join(line for line in lines if line)


def _read_answer(text: str, choices: Choices) -> tuple[str | None, str | None]:
    """Read a text that is only an answer, such as that between tags; if it is not a choice, read it as prose."""
    raw = choices.letter_of_text(text)  # before the markup is removed: a choice may be `*` or `$x$`
    text = _strip_markup(text)
    if not text:
        return None, "the answer is empty"
    letter = raw or choices.letter_of_text(text)
    return (letter, None) if letter else _read_line(text, choices) or _read_prose(text, choices)


def _read_line(line: str, choices: Choices) -> tuple[str | None, str | None] | None:
    """Read a line that is a letter, a choice's text, or both; None for other lines."""
    alone = _ALONE.fullmatch(line)
    if alone and alone[1].upper() in choices.letters:
        return alone[1].upper(), None
    if letter := choices.letter_of_text(line):
        return letter, None
    match = _WITH_TEXT.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    if not match or (match[1] or match[2]).upper() not in choices.letters:
        return None
    letter, rest = (match[1] or match[2]).upper(), match[3]
    named = choices.letter_of_text(rest)
    if named and named != letter:
        return None, f"the letter {letter} and the text of {named}"
    if named is None and fold_choice(choices.texts[choices.letters.index(letter)]) != fold_choice(rest):
        return _unless_hedged(letter, line, line[match.end(1) if match[1] else match.end(2) :], choices)
    return letter, None


def _read_prose(text: str, choices: Choices) -> tuple[str | None, str | None]:
    """Return the last letter that prose states and None, or None and the reason."""
    lines = [line for line in text.splitlines() if line]
    if not lines:
        return None, "the answer is empty"
    # A last line that is only a letter or a choice is the answer, unless it ends a repeated question.
    if (read := _read_line(lines[-1], choices)) and not _lists_choices(lines, choices):
        return read
    last: tuple[int, str, str] | None = None
    for statement in _STATEMENTS:
        for match in statement.finditer(text):
            letter = match[1]
            after = text[match.end() :]
            if letter not in choices.letters or _is_article(letter, match[0], after):
                continue
            # "Is the answer B?" and "if the answer is B" state nothing.
            if _QUESTION_MARK.match(after) or _IF.search(text[max(0, match.start() - 60) : match.start()]):
                continue
            if _NOT.search(text[max(0, match.start() - 12) : match.start(1)]):
                continue
            if last is None or match.end() > last[0]:
                last = (match.end(), letter, after)
    if last:
        # Another letter counts as a hedge only within the sentence of the statement.
        end, letter, after = last
        start = max(text.rfind(mark, 0, end) for mark in ("\n", ". ", "? ", "! ")) + 1
        sentence = text[start:end] + re.split(r"\n|(?<=[.!?])\s", after, maxsplit=1)[0]
        return _unless_hedged(letter, sentence, after, choices)
    if named := _read_stated_text(text, choices):
        return named, None
    if read := _read_line(lines[0], choices):
        return read
    several = _find_several(lines[-1], choices)
    return None, f"the answer names several: {several}" if several else _NO_CHOICE


def _unless_hedged(letter: str, sentence: str, after: str, choices: Choices) -> tuple[str | None, str | None]:
    """Return the letter and None, or None and the reason if another letter is named beside it.

    Args:
        letter: The letter that is stated.
        sentence: The sentence that states it.
        after: Text after the letter, which may add an alternative.
        choices: The choices.
    """
    several = _find_several(sentence, choices, letter)
    doubt = _HEDGE.match(after)
    if not several and doubt and doubt[1] in choices.letters and doubt[1] != letter:
        several = f"{letter}, {doubt[1]}"
    return (None, f"the answer names several: {several}") if several else (letter, None)


def _find_several(text: str, choices: Choices, letter: str = "") -> str:
    """Return two different letters that a text names beside each other, one of them `letter` if given; else empty."""
    for match in _SEVERAL.finditer(text):
        if letter and letter not in match.groups():
            continue
        if match[1] != match[2] and match[1] in choices.letters and match[2] in choices.letters:
            return f"{match[1]}, {match[2]}"
    return ""


def _is_article(letter: str, matched: str, after: str) -> bool:
    """Return whether the letter is the word "a" or "I" of a sentence."""
    if letter not in "AI" or matched.rstrip().endswith((")", "]")):
        return False
    following = re.match(r"[ \t]+([a-z]+)", after)
    return following is not None and following[1] not in {"because", "since", "as", "for", "with", "or", "and", "is"}


def _lists_choices(lines: list[str], choices: Choices) -> bool:
    """Return whether the last line ends a list of the choices, as when the completion repeats the question."""
    lettered = [match[1] or match[2] for line in lines if (match := _WITH_TEXT.fullmatch(line[:_LONGEST_LINE]))]
    return (
        len({letter.upper() for letter in lettered}) > 1
        and lines[-1] == lines[-len(lettered) :][-1]
        and (
            _WITH_TEXT.fullmatch(lines[-1][:_LONGEST_LINE]) is not None
            and not re.match(_SUBJECT, lines[-1], re.IGNORECASE)
        )
    )


def _read_stated_text(text: str, choices: Choices) -> str | None:
    """Return the letter of the choice whose text follows the last "the answer is"; None if there is none."""
    statements = list(re.finditer(rf"{_SUBJECT}{_COPULA}([^\n]+)", text, re.IGNORECASE))
    if not statements:
        return None
    rest = encodable(statements[-1][1]).strip()
    return choices.letter_of_text(rest) or choices.letter_of_text(re.split(r"(?<=\w)\.\s", rest, maxsplit=1)[0])
