"""Columns: which one holds what, decided once, and how a dotted path reaches into nested ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from rollmill.errors import InputError
from rollmill.files.rows import Row
from rollmill.problems.source import ProblemSource

PROMPT_COLUMNS = (
    "prompt",
    "problem",
    "problem_statement",
    "question",
    "instruction",
    "query",
    "input",
    "text",
    "messages",
)
ANSWER_COLUMNS = (
    "answer",
    "ground_truth",
    "reward_model.ground_truth",
    "target",
    "label",
    "solution",
    "gt",
    "score",
    "expected_answer",
)
RESPONSE_COLUMNS = ("response", "answer", "output", "completion")
"""Where a data set may hold an answer as somebody gave it, right or wrong."""
ID_COLUMNS = ("instance_id", "id", "problem_id", "task_id", "uid", "index")
IMAGE_COLUMNS = ("images", "image")


class Missing:
    """The type of `MISSING`: nothing stands there, as opposed to null."""


MISSING: Final = Missing()


class Columns(NamedTuple):
    """Which column (a dotted path) holds what."""

    prompt: str
    answer: str | None
    id: str | None
    images: str | None

    def to_fields(self) -> dict[str, str]:
        """What was taken for prompt, answer, id and images; what there is not is left out."""
        return {role: column for role, column in self._asdict().items() if column is not None}


def get(row: Row, column: str) -> Any | Missing:
    """What stands in a column, or `MISSING`. A column whose own name has dots goes before a nested one."""
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def without(row: Row, columns: Iterable[str]) -> Row:
    """The row less some columns; of a nested column only the named leaf goes."""
    rest = dict(row)
    for column in columns:
        if column in rest:
            del rest[column]
            continue
        level, (*parents, leaf) = rest, column.split(".")
        for key in parents:
            child = level.get(key)
            if not isinstance(child, dict):
                break
            level[key] = level = dict(child)
        else:
            level.pop(leaf, None)
    return rest


def choose_columns(source: ProblemSource, head: Sequence[Row]) -> Columns:
    """Decides from the first rows which column holds what.

    A column that the source names must stand in at least one of the rows; one that is detected must hold more than
    nulls. Raises `InputError`, listing the columns, where a named column is absent or none can be detected.
    """
    prompt = _named(source, head, source.prompt_field, "--prompt_field") or _first(head, PROMPT_COLUMNS)
    if prompt is None:
        raise _undetected(source, head, "question", "--prompt_field", PROMPT_COLUMNS)
    answer = None
    if source.answer_field != "":
        rest = [column for column in ANSWER_COLUMNS if column != prompt]
        answer = _named(source, head, source.answer_field, "--answer_field") or _first(head, rest)
        if answer is None:
            raise _undetected(source, head, "ground truth", "--answer_field", ANSWER_COLUMNS)
    identity = _named(source, head, source.id_field, "--id_field")
    if identity is None and source.id_field != "":
        identity = _first(head, [column for column in ID_COLUMNS if column not in {prompt, answer}])
    images = _first(head, [column for column in IMAGE_COLUMNS if column not in {prompt, answer, identity}])
    if source.image_field not in IMAGE_COLUMNS[:1]:
        images = _named(source, head, source.image_field, "--image_field")
    return Columns(prompt, answer, identity, images)


def _named(source: ProblemSource, head: Sequence[Row], column: str | None, flag: str) -> str | None:
    if not column:
        return None
    if all(get(row, column) is MISSING for row in head):
        where = f"in its first {len(head)} rows" if len(head) > 1 else "in its first row"
        raise InputError(f"{source.dataset} has no column {column!r} ({flag}) {where}; its columns: {_listed(head)}")
    return column


def _first(head: Sequence[Row], candidates: Iterable[str]) -> str | None:
    for column in candidates:
        if any(value is not MISSING and value is not None for value in (get(row, column) for row in head)):
            return column
    return None


def _undetected(
    source: ProblemSource, head: Sequence[Row], what: str, flag: str, candidates: Sequence[str]
) -> InputError:
    return InputError(
        f"cannot tell which column of {source.dataset} holds the {what}: name it with {flag}; its columns: "
        f"{_listed(head)} (looked for {', '.join(candidates)})"
    )


def _listed(head: Sequence[Row]) -> str:
    names: dict[str, None] = {}
    for row in head:
        for column, value in row.items():
            nested = [f"{column}.{key}" for key in value] if isinstance(value, dict) else []
            names.update(dict.fromkeys([column, *nested]))
    shown = list(names)[:40]
    return ", ".join(shown) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
