"""Prompt template, system prompt and few-shot examples, the same for every problem of a run."""

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
from rollmill.problems.cells import MISSING, UnusableCellError, read_answer
from rollmill.problems.choices import COLUMNS as CHOICE_COLUMNS
from rollmill.problems.columns import ANSWER_COLUMNS, PROMPT_COLUMNS, get, normalized
from rollmill.problems.data_files import read_data_file

_QUESTIONS = tuple(column for column in PROMPT_COLUMNS if column != "messages")
_ANSWERS = ("completion", "answer", "response", "output", "solution", "expected_answer", "ground_truth", "target")
_LATEX = (
    "nabla natural ncong ne nearrow neg neq newcommand newline nexists ngeq ngtr ni nleftarrow nleq nless nmid "
    "noindent nolimits nonumber norm normalsize not notin nparallel nprec nrightarrow nsim nsubseteq nsucc nsupseteq "
    "nu num nwarrow"
)
# `\\n` is an escaped backslash before n; `\n` is a line break unless it begins one of LaTeX's commands.
_LINE_BREAK = re.compile(r"\\(\\n|n(?!(?:" + "|".join(name[1:] for name in _LATEX.split()) + r")(?![A-Za-z])))")
_MOST_COLUMNS = 1000
"""Most columns in a template, since each value may be as long as a prompt."""
PROMPT = "prompt"
_USUAL = frozenset(map(normalized, _QUESTIONS))
_LEAKS = "it would show the model the ground truth"


class _Piece(NamedTuple):
    """Literal text of a template, followed by the value of a column unless that is None."""

    literal: str
    column: str | None
    conversion: str | None
    spec: str


class Prompting(BaseModel):
    """Template, system prompt and few-shot examples. Raises `InputError` for an unusable template."""

    model_config = ConfigDict(frozen=True)

    template: str | None = None
    """Text with `{prompt}`, and optionally other `{column}`s; `{{` and `}}` are literal braces. Without `{prompt}`, the
    first usual name of a question's column (`{question}`, `{problem}`) is the prompt."""
    system_prompt: str | None = None
    few_shot: tuple[tuple[str, str], ...] = ()
    """(question, answer) pairs; the template applies to questions, answers are unchanged."""
    choices: bool = False
    """Show a problem's choices after its question, as lettered lines, unless the template names their column."""

    @classmethod
    def from_flags(cls, template: str | None, few_shot_path: str | None, system_prompt: str | None) -> Self:
        r"""Build the prompting from a command's flags.

        Args:
            template: Text, or the path of a file with it, whose final newline is removed. In a text on one line `\n`
                is a line break: see `with_line_breaks`.
            few_shot_path: JSON Lines, JSON or Parquet file with a question (`prompt`, `question`, `problem`, ...) and
                an answer (`completion`, `answer`, `response`, ...) per row.
            system_prompt: Text; `\n` as in the template.

        Raises `InputError`, for a bad row with file, row and field.
        """
        few_shot = tuple(_read_examples(few_shot_path)) if few_shot_path else ()
        system = None if system_prompt is None else with_line_breaks(system_prompt)
        return cls(template=_read_template(template), system_prompt=system, few_shot=few_shot)

    @property
    def identity(self) -> dict[str, Any]:
        """Return what determines a run's outputs."""
        return {
            "template": self.template,
            "system_prompt": self.system_prompt,
            "few_shot": [list(pair) for pair in self.few_shot],
            # Left out if false, so that runs from before the option keep their identity.
            **({"choices": True} if self.choices else {}),
        }

    @property
    def shows_choices(self) -> bool:
        """Return whether choices follow the question."""
        return self.choices and not any(piece.column in CHOICE_COLUMNS for piece in self._pieces)

    def check_columns(self, fields: dict[str, str]) -> None:
        """Check that the template names the question's column and not the answer's. Raises `InputError`.

        `fields` is `LoadedProblems.fields`.
        """
        named, question = self._question, fields.get("prompt", PROMPT)
        if self.template is not None and named != PROMPT and normalized(str(named)) != normalized(question):
            raise InputError(
                f"the prompt template has {{{named}}} for the question, and no {{{PROMPT}}}; the question is in the "
                f"column {question}: write {{{PROMPT}}}, or name the column with --prompt_field {named}"
            )
        for column in (piece.column for piece in self._pieces):
            if column is not None and column == fields.get("answer"):
                raise InputError(f"the prompt template names the answer's column {{{column}}}: {_LEAKS}")

    def render(self, question: str, columns: dict[str, Any], where: str) -> str:
        """Fill the template with a question and the other columns of its row; without a template, return the question.

        Args:
            question: The question.
            columns: Other columns of the row.
            where: Start of the message of the `InputError` for a missing column.
        """
        if self.template is None:
            return question
        columns = {**columns, self._question or PROMPT: question}
        return "".join(_render(piece, columns, where) for piece in self._pieces)

    @cached_property
    def _question(self) -> str | None:
        """Return the name under which the template refers to the question; None if it does not."""
        columns = [piece.column for piece in self._pieces if piece.column is not None]
        usual = (column for column in columns if normalized(column) in _USUAL)
        return PROMPT if PROMPT in columns else next(usual, None)

    @cached_property
    def _pieces(self) -> tuple[_Piece, ...]:
        return () if self.template is None else tuple(_parse(self.template))

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        columns = {piece.column for piece in self._pieces} - {None}
        if self.template is not None and self._question is None:
            raise InputError(f"the prompt template has no {{prompt}} in it, and is not a file: {self.template[:80]!r}")
        if "answer" in columns:
            raise InputError(f"the prompt template names {{answer}}: {_LEAKS}")
        others = columns - {self._question}
        if others and self.few_shot:
            shown = ", ".join(f"{{{column}}}" for column in sorted(map(str, others)))
            raise InputError(f"the prompt template names {shown}, which few-shot examples do not have: use one of both")
        return self


def with_line_breaks(text: str) -> str:
    r"""Replace `\n` in a one-line text by a line break, since a shell passes it on literally.

    `\\n` becomes a literal `\n`. LaTeX commands (`\neq`, `\nu`) and all other backslashes are unchanged, and so is a
    text that already has line breaks.
    """
    return text if "\n" in text else _LINE_BREAK.sub(lambda match: "\n" if match[1] == "n" else "\\n", text)


def _read_template(template: str | None) -> str | None:
    if template is None:
        return None
    try:
        path = Path(template).expanduser()
        if not path.is_file():
            return with_line_breaks(template)
    except (OSError, RuntimeError):  # the text is too long for a path, or begins with a ~ that is no user's home
        return with_line_breaks(template)
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
        # `\d` matches digits of any script, as `format` accepts them. A large width would exhaust memory, and the
        # template may come from an untrusted file.
        if re.search(r"\d{4}", spec or ""):
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


def _render(piece: _Piece, columns: dict[str, Any], where: str) -> str:
    if piece.column is None:
        return piece.literal
    value = get(columns, piece.column)
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
        f"{', '.join(dict.fromkeys([PROMPT, *columns]))}; {why}"
    )


def _read_examples(path: str) -> list[tuple[str, str]]:
    examples = []
    for number, row in read_data_file(path):
        if isinstance(row, BadRow):
            raise InputError(f"{_location(path, number)}: {row.reason}")
        examples.append((_cell(path, number, row, _QUESTIONS), _cell(path, number, row, _ANSWERS)))
    if not examples:
        raise InputError(f"{path} holds no few-shot examples")
    return examples


def _cell(path: str, number: int, row: dict[str, Any], candidates: tuple[str, ...]) -> str:
    """Return the text of the first candidate column that is not null. Raises `InputError`.

    Args:
        path: File of the examples, for messages.
        number: 1-based line or row, for messages.
        row: The row.
        candidates: Column names, in order of preference.
    """
    column = next((name for name in candidates if row.get(name) is not None), None)
    if column is None:
        columns = ", ".join(row) or "none"
        location = _location(path, number)
        raise InputError(f"{location}: has none of the fields {', '.join(candidates)}; its fields: {columns}")
    try:
        return read_answer(row[column], column)
    except UnusableCellError as error:
        raise InputError(f"{_location(path, number)}: field {column} {error}") from error


def _location(path: str, number: int) -> str:
    return f"{path} {'line' if '.jsonl' in path else 'row'} {number}"
