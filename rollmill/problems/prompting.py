"""Prompting: what stands around a problem's question, the same for every problem of a run."""

from __future__ import annotations

import json
import re
import string
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from rollmill.errors import InputError
from rollmill.files.rows import BadRow
from rollmill.problems.cells import UnusableCellError, read_answer
from rollmill.problems.columns import ANSWER_COLUMNS, MISSING, PROMPT_COLUMNS, get
from rollmill.problems.data_files import read_data_file

_QUESTIONS = tuple(column for column in PROMPT_COLUMNS if column != "messages")
_ANSWERS = ("completion", "answer", "response", "output", "solution", "expected_answer", "ground_truth", "target")
_MOST_COLUMNS = 1000
"""In a template: each may be as long as a prompt."""
_LEAKS = "it would show the model the ground truth"


class _Piece(NamedTuple):
    """Literal text, then maybe a column's value."""

    literal: str
    column: str | None
    conversion: str | None
    spec: str


class Prompting(BaseModel):
    """Template, system prompt and examples. Raises `InputError` for a template that cannot work."""

    model_config = ConfigDict(frozen=True)

    template: str | None = None
    """Text with `{prompt}` and maybe `{column}`s in it; `{{` and `}}` make braces."""
    system_prompt: str | None = None
    few_shot: tuple[tuple[str, str], ...] = ()
    """(question, answer) pairs; questions go through the template, answers stand as they are."""

    @classmethod
    def from_flags(cls, template: str | None, few_shot_path: str | None, system_prompt: str | None) -> Self:
        """Reads what the flags name.

        A template that is the path of a file is read from it, less one newline at its end. The examples' file is JSON
        Lines or JSON (or Parquet) with a question (`prompt`, `question`, `problem`, ...) and an answer (`completion`,
        `answer`, `response`, ...) per row. Raises `InputError`, for a row with file, row and field.
        """
        few_shot = tuple(_read_examples(few_shot_path)) if few_shot_path else ()
        return cls(template=_read_template(template), system_prompt=system_prompt, few_shot=few_shot)

    @property
    def identity(self) -> dict[str, Any]:
        """What of it determines a run's outputs."""
        return {
            "template": self.template,
            "system_prompt": self.system_prompt,
            "few_shot": [list(pair) for pair in self.few_shot],
        }

    def check_columns(self, fields: dict[str, str]) -> None:
        """Refuses a template that names the answer's column. `fields` is `LoadedProblems.fields`.

        Raises `InputError`.
        """
        for column in (piece.column for piece in self._pieces):
            if column is not None and column == fields.get("answer"):
                raise InputError(f"the prompt template names the answer's column {{{column}}}: {_LEAKS}")

    def render(self, question: str, columns: dict[str, Any], where: str) -> str:
        """The template with a question and its row's other columns put in; without a template, the question.

        `where` begins the message of the `InputError` for a column that is missing.
        """
        if self.template is None:
            return question
        return "".join(_render(piece, question, columns, where) for piece in self._pieces)

    @cached_property
    def _pieces(self) -> tuple[_Piece, ...]:
        return () if self.template is None else tuple(_parse(self.template))

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        columns = {piece.column for piece in self._pieces} - {None}
        if self.template is not None and "prompt" not in columns:
            raise InputError(f"the prompt template has no {{prompt}} in it, and is not a file: {self.template[:80]!r}")
        if "answer" in columns:
            raise InputError(f"the prompt template names {{answer}}: {_LEAKS}")
        others = columns - {"prompt"}
        if others and self.few_shot:
            shown = ", ".join(f"{{{column}}}" for column in sorted(map(str, others)))
            raise InputError(f"the prompt template names {shown}, which few-shot examples do not have: use one of both")
        return self


def _read_template(template: str | None) -> str | None:
    if template is None or "\n" in template:
        return template
    try:
        path = Path(template).expanduser()
        if not path.is_file():
            return template
    except (OSError, RuntimeError):  # a text too long to be a path, or with a ~ that is no home
        return template
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompt template {template}: {error}") from error


def _parse(template: str) -> list[_Piece]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise _malformed(template, str(error)) from error
    pieces = []
    for literal, column, spec, conversion in parsed:
        if column is not None and (not column or column.isdigit() or any(mark in column for mark in "[]\\ \n,{}")):
            raise _malformed(template, f"{{{column}}} names no column")
        if "{" in (spec or ""):
            raise _malformed(template, f"{{{column}:{spec}}} is nested")
        if re.search(r"\d{4}", spec or ""):  # in any script, as `format` reads it; the template may be anybody's
            raise _malformed(template, f"{{{column}:{spec}}} is more than 999 wide")
        pieces.append(_Piece(literal, column, conversion, spec or ""))
    if sum(piece.column is not None for piece in pieces) > _MOST_COLUMNS:
        raise _malformed(template, f"more than {_MOST_COLUMNS:,} of them name columns")
    return pieces


def _malformed(template: str, reason: str) -> InputError:
    return InputError(
        f"the prompt template's braces are malformed ({reason}): double those that are meant as text, as in "
        f"\\boxed{{{{}}}}: {template[:80]!r}"
    )


def _render(piece: _Piece, question: str, columns: dict[str, Any], where: str) -> str:
    if piece.column is None:
        return piece.literal
    value = question if piece.column == "prompt" else get(columns, piece.column)
    if value is MISSING:
        raise _no_column(piece.column, columns, where)
    if isinstance(value, dict | list | bool) or value is None:
        value = json.dumps(value, ensure_ascii=False)
    try:
        return piece.literal + format(string.Formatter().convert_field(value, piece.conversion), piece.spec)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"{where}: the prompt template cannot format {{{piece.column}}}: {error}") from error


def _no_column(column: str, columns: dict[str, Any], where: str) -> InputError:
    if column in ANSWER_COLUMNS:
        why = f"an answer's column is never offered, because {_LEAKS}"
    else:
        why = "double the braces if they are meant as text"
    return InputError(
        f"{where} has no column {column!r} for {{{column}}} in the prompt template: it has "
        f"{', '.join(['prompt', *columns])}; {why}"
    )


def _read_examples(path: str) -> list[tuple[str, str]]:
    examples = []
    for number, row in read_data_file(path):
        if isinstance(row, BadRow):
            raise InputError(f"{_place(path, number)}: {row.reason}")
        examples.append((_cell(path, number, row, _QUESTIONS), _cell(path, number, row, _ANSWERS)))
    if not examples:
        raise InputError(f"{path} holds no few-shot examples")
    return examples


def _cell(path: str, number: int, row: dict[str, Any], candidates: tuple[str, ...]) -> str:
    column = next((name for name in candidates if row.get(name) is not None), None)
    if column is None:
        columns = ", ".join(row) or "none"
        place = _place(path, number)
        raise InputError(f"{place}: has none of the fields {', '.join(candidates)}; its fields: {columns}")
    try:
        return read_answer(row[column], column)
    except UnusableCellError as error:
        raise InputError(f"{_place(path, number)}: field {column} {error}") from error


def _place(path: str, number: int) -> str:
    return f"{path} {'line' if '.jsonl' in path else 'row'} {number}"
