"""Multiple choice: read the choices of a problem from its columns, and give them letters."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

COLUMNS = ("choices", "options", "endings")
"""Columns that may hold all choices; without one of them, columns `A`, `B`, ... hold one each."""
MOST_CHOICES = len(string.ascii_uppercase)
_LABELLED = re.compile(r"\s*[(\[]?([A-Z])[)\].:]\s*(.*)", re.DOTALL)
_LETTER = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\].:]*")


class Choices(NamedTuple):
    """The choices in the order of the data."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """Their labels in the data (ARC: `A` to `D`, or `1` to `4`); empty where they have none."""

    @property
    def letters(self) -> str:
        """Return the letters under which the model is shown the choices."""
        return string.ascii_uppercase[: len(self.texts)]

    def letter_of(self, truth: str) -> str | None:
        """Return the letter of a ground truth: a label, a letter, a 0-based number, or the text of one choice."""
        truth = truth.strip()
        # Labels first: with the labels 1 to 4, "1" is the first choice, not the one at index 1.
        if truth in self.labels:
            return self.letters[self.labels.index(truth)]
        letter = _LETTER.fullmatch(truth)
        if letter and letter[1].upper() in self.letters:
            return letter[1].upper()
        if truth.isascii() and truth.isdecimal() and int(truth) < len(self.texts):
            return self.letters[int(truth)]
        return self.letter_of_text(truth)

    def letter_of_text(self, text: str) -> str | None:
        """Return the letter of the only choice with this text, ignoring case and white space; None if there is none."""
        folded = fold_choice(text)
        letters = [
            letter
            for letter, choice in zip(self.letters, self.texts, strict=True)
            if folded and fold_choice(choice) == folded
        ]
        return letters[0] if len(letters) == 1 else None

    def lines(self) -> str:
        """Return the choices as lettered lines, such as `A. Paris`."""
        return "\n".join(f"{letter}. {text}" for letter, text in zip(self.letters, self.texts, strict=True))

    def shown_after(self, question: str) -> str:
        """Return the question followed by the lettered lines; unchanged if it already lists the choices."""
        folded = " ".join(question.split())
        pairs = list(zip(self.letters, (" ".join(text.split()) for text in self.texts), strict=True))
        marks = (". ", ") ", ": ", ".", ")", ":")
        if all(any(f"{letter}{mark}{text}" in folded for mark in marks) for letter, text in pairs):
            return question
        return f"{question}\n\n{self.lines()}"


def fold_choice(text: str) -> str:
    """Normalize a choice's text for comparison: lower case, single spaces, no full stop at the end."""
    return " ".join(text.casefold().split()).rstrip(".")


def read_choices(fields: Mapping[str, Any]) -> Choices | None:
    """Read the choices from a problem's columns; None where it has none.

    Accepted forms: a list of texts (MMLU), `{"text": [...], "label": [...]}` (ARC), a list of `{"label", "text"}`,
    `{"A": ...}`, or columns `A`, `B`, .... Raises `ValueError` for a column that holds something else.
    """
    for name in COLUMNS:
        value = fields.get(name)
        if value is not None:
            return _checked(name, _read(name, value))
    columns = []
    for letter in string.ascii_uppercase:
        if not _is_text(fields.get(letter)):
            break
        columns.append(str(fields[letter]))
    return Choices(tuple(columns)) if len(columns) > 1 else None


def _read(name: str, value: Any) -> Choices:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        value = {key: [each.get(key) for each in value] for key in ("text", "label") if all(key in e for e in value)}
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        labels = value.get("label")
        named = isinstance(labels, list) and len(labels) == len(value["text"]) and all(map(_is_text, labels))
        return Choices(_texts(name, value["text"]), tuple(map(str, labels)) if named and labels else ())
    if isinstance(value, dict):
        labels = [key for key, each in value.items() if each is not None]
        if not all(len(key) == 1 and key.isalnum() for key in labels):
            raise ValueError(f"{name} holds no choices: {', '.join(labels)[:80]}")
        return Choices(_texts(name, [value[key] for key in labels]), tuple(labels))
    if isinstance(value, list):
        return Choices(_without_labels(_texts(name, value)))
    raise ValueError(f"{name} holds no list of choices")


def _texts(name: str, values: Sequence[Any]) -> tuple[str, ...]:
    if not all(map(_is_text, values)):
        raise ValueError(f"{name} holds a choice that is no text")
    return tuple(str(value).strip() for value in values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _without_labels(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Remove the letters that some data sets put before each text (`A)21`), if all have one, in order."""
    labelled = [_LABELLED.fullmatch(text) for text in texts]
    letters = "".join(match[1] for match in labelled if match)
    if letters != string.ascii_uppercase[: len(texts)]:
        return texts
    return tuple(match[2].strip() for match in labelled if match)


def _checked(name: str, choices: Choices) -> Choices:
    if not 2 <= len(choices.texts) <= MOST_CHOICES:
        raise ValueError(f"{name} holds {len(choices.texts)} choices, and 2 to {MOST_CHOICES} have letters")
    return choices
