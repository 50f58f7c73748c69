"""Choose the columns of prompt, answer, id and images once per data set, and read nested ones by dotted path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from rollmill.errors import InputError
from rollmill.files.rows import Row
from rollmill.problems.cells import MISSING, Missing, UnusableCellError, read_answers, read_id, read_prompt
from rollmill.problems.images import media_type
from rollmill.problems.source import ProblemSource, Role

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
    "expected_answer",
    "ground_truth",
    "reward_model.ground_truth",
    "gt",
    "correct_answer",
    "reference_answer",
    "gold_answer",
    "final_answer",
    "answer",
    "answers",
    "answer.value",
    "answers.text",
    "answer_key",
    "target",
    "solution",
    "canonical_solution",
    "gold",
    "correct",
    "code",
    "label",
    "score",
)
"""The first of these that a data set has is the ground truth. Unambiguous names come first, then answers of any kind,
then worked solutions; labels and scores, which may also be ratings, come last."""
RESPONSE_COLUMNS = ("response", "answer", "output", "completion")
"""Columns that may hold a response of a model or person, right or wrong."""
ID_COLUMNS = ("instance_id", "id", "problem_id", "task_id", "uid", "index")
IMAGE_COLUMNS = ("images", "decoded_image", "image")
"""Without these: all numbered columns (`image_1`, `image_2`, ...) of a row; without those: the only column of a row
that holds images as bytes or data URLs, whatever its name."""
MOST_BAD_IDS = 0.1
"""Largest share of rows with a missing, unusable or duplicate id in a column that is detected as the id."""

_NUMBERED_IMAGE = re.compile(r"image([1-9][0-9]?)")


class Columns(NamedTuple):
    """The column (a dotted path) of each role; None where the data set has none."""

    prompt: str
    answer: str | None
    id: str | None
    images: str | None

    def to_fields(self) -> dict[str, str]:
        """Return the columns of prompt, answer, id and images, without the roles that have none."""
        return {role: column for role, column in self._asdict().items() if column is not None}


def get(row: Row, column: str) -> Any | Missing:
    """Return the value of a column, a dotted path into nested ones, or `MISSING`."""
    # A column whose name contains dots takes precedence over a nested one.
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def without(row: Row, columns: Iterable[str]) -> Row:
    """Return a copy of the row without some columns; of a nested column only the named leaf is removed."""
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
            level[key] = level = dict(child)  # copied on the way down, so that the caller's row stays as it is
        else:
            level.pop(leaf, None)
    return rest


def choose_columns(source: ProblemSource, head: Sequence[Row], *, no_ids: Collection[str] = ()) -> Columns:
    """Choose the column of each role from the first rows.

    Names match in any case, with or without `_`, `-` and spaces. A column that the source names must exist in at least
    one of the rows; a detected one must hold usable values. An image column may appear in later rows only: see
    `ImageColumns`. Raises `InputError`, listing the columns, where a named column is absent or none can be detected.

    Args:
        source: The data set, with the columns that the user names.
        head: Its first rows.
        no_ids: Columns that are known to hold no unique ids.
    """
    table = _Table(head)
    prompt = _check_named(source, table, "prompt") or table.first(PROMPT_COLUMNS, read_prompt)
    if prompt is None:
        raise _undetected_error(source, table, "question", "prompt", PROMPT_COLUMNS)
    answer = None
    if source.answer_field != "":
        answer = _check_named(source, table, "answer") or table.first(ANSWER_COLUMNS, read_answers, {prompt})
        if answer is None:
            raise _undetected_error(source, table, "ground truth", "answer", ANSWER_COLUMNS)
    identity = _check_named(source, table, "id")
    if identity is None and source.id_field != "":
        identity = table.first_ids({prompt, answer, *no_ids})
    images = source.image_field or None
    if source.image_field == IMAGE_COLUMNS[0]:
        images = table.first(IMAGE_COLUMNS, None, {prompt, answer, identity})
    elif images is not None:
        images = table.find(images) or images
    return Columns(prompt, answer, identity, images)


def first_column(head: Sequence[Row], candidates: Iterable[str]) -> str | None:
    """Return the first of the candidate columns with a value that is not null; None if there is none.

    Names match in any case.
    """
    return _Table(head).first(candidates)


class ImageColumns:
    """Finds the image columns of each row, since rows of one data set may have images in different columns."""

    def __init__(self, columns: Columns, image_field: str) -> None:
        """Search the column that the user names, no column if `image_field` is empty, else those of usual names."""
        self._named = columns.images if image_field not in ("", IMAGE_COLUMNS[0]) else None
        self._detects = image_field == IMAGE_COLUMNS[0]
        self._others = frozenset({columns.prompt, columns.answer, columns.id} - {None})
        self._keys: tuple[str, ...] = ()
        self._groups: list[list[str]] = []
        # True as long as no row has the column that the user named.
        self.is_missing = self._named is not None

    def of(self, row: Row) -> list[str]:
        """Return the columns that hold the row's images, in order; empty if there are none.

        Raises `UnusableCellError` if several columns hold images and none has a usual name.
        """
        if self._named is not None:
            self.is_missing = self.is_missing and get(row, self._named) is MISSING
            return [self._named]
        if not self._detects:
            return []
        keys = tuple(row)
        if keys != self._keys:  # cached, since rows of one data set mostly have the same columns
            self._keys, self._groups = keys, self._group(keys)
        for group in self._groups:
            if filled := [column for column in group if not is_no_image(row[column])]:
                return filled
        others = [column for column, value in row.items() if column not in self._others and _is_image(value)]
        if len(others) > 1:
            raise UnusableCellError(others[1], "is one of several columns of images", ", ".join(others)[:200])
        return others

    def _group(self, keys: Sequence[str]) -> list[list[str]]:
        """Return the columns with usual image names, in groups; the first group that holds an image is used."""
        names = {key: normalized(key) for key in keys if key not in self._others}
        alike = ([key for key, name in names.items() if name == normalized(column)][:1] for column in IMAGE_COLUMNS)
        numbered = [(int(match[1]), key) for key, name in names.items() if (match := _NUMBERED_IMAGE.fullmatch(name))]
        return [*alike, [key for _, key in sorted(numbered)]]


def is_no_image(cell: Any) -> bool:
    """Return whether a cell of an image column is empty."""
    return cell is MISSING or cell is None or (isinstance(cell, str | list) and not cell)


def _is_image(value: Any) -> bool:
    """Return whether a value contains an image, as bytes or a data URL. Paths and URLs only name one."""
    first = value[0] if isinstance(value, list) and value else value
    content = first.get("bytes") if isinstance(first, dict) else first
    if isinstance(content, str):
        return content.startswith("data:image/")
    return isinstance(content, bytes) and media_type(content) is not None


def normalized(name: str) -> str:
    """Normalize a column's name for comparison: lower case, without spaces, `_` and `-`."""
    return re.sub(r"[\s_-]+", "", str(name).casefold())


class _Table:
    """Columns of the first rows, found by name in any case."""

    def __init__(self, head: Sequence[Row]) -> None:
        self._head = head
        self.columns: dict[str, None] = {}
        for row in head:
            for column, value in row.items():
                nested = [f"{column}.{key}" for key in value] if isinstance(value, dict) else []
                self.columns.update(dict.fromkeys([column, *nested]))
        self._alike: dict[str, list[str]] = {}
        for column in self.columns:
            self._alike.setdefault(normalized(column), []).append(column)

    def __len__(self) -> int:
        return len(self._head)

    def find(self, name: str) -> str | None:
        """Return the column with this exact name, a dotted path of any depth, or else one that differs in case."""
        if any(get(row, name) is not MISSING for row in self._head):
            return name
        return next(iter(self._alike.get(normalized(name), ())), None)

    def first(
        self,
        names: Iterable[str],
        read: Callable[[Any, str], object] | None = None,
        others: Collection[str | None] = (),
    ) -> str | None:
        """Return the first column with these names that has a usable value, or else one that is not null.

        Args:
            names: Candidate names, in order of preference.
            read: Raises `UnusableCellError` for an unusable value; None accepts every value that is not null.
            others: Columns that already have a role.
        """
        filled = [
            column
            for name in names
            for column in sorted(self._alike.get(normalized(name), ()), key=lambda column: column != name)
            if column not in others and self._values(column)
        ]
        if read is None:
            return next(iter(filled), None)
        usable = (column for column in filled if any(_reads(read, value, column) for value in self._values(column)))
        return next(usable, next(iter(filled), None))

    def first_ids(self, others: Collection[str | None]) -> str | None:
        """Return the first column with a usual id name whose values are unique ids."""
        candidates = [name for name in ID_COLUMNS if self.first([name], None, others) is not None]
        columns = (self.first([name], None, others) for name in candidates)
        return next((column for column in columns if column is not None and self._holds_ids(column)), None)

    def _holds_ids(self, column: str) -> bool:
        values = [get(row, column) for row in self._head]
        # Floats are measurements, not ids, even where they are unique.
        texts = [str(value) for value in values if not isinstance(value, float) and _reads(read_id, value, column)]
        return len(values) - len(set(texts)) <= MOST_BAD_IDS * len(values)

    def _values(self, column: str) -> list[Any]:
        values = (get(row, column) for row in self._head)
        return [value for value in values if value is not MISSING and value is not None]


def _reads(read: Callable[[Any, str], object], value: Any, column: str) -> bool:
    try:
        read(value, column)
    except UnusableCellError:
        return False
    return True


def _check_named(source: ProblemSource, table: _Table, role: Role) -> str | None:
    name = source.named(role)
    if not name:
        return None
    column = table.find(name)
    if column is None:
        where = f"in its first {len(table)} rows" if len(table) > 1 else "in its first row"
        raise InputError(
            f"{source.dataset} has no column {name!r}{source.in_brackets(role)} {where}; its columns: {_listed(table)}"
        )
    return column


def _undetected_error(
    source: ProblemSource, table: _Table, what: str, role: Role, candidates: Sequence[str]
) -> InputError:
    """Return the error for a role whose column cannot be detected.

    Args:
        source: The data set.
        table: Its columns, which the message lists.
        what: Noun for the role in the message.
        role: The role, whose flag the message names.
        candidates: Column names that were tried.
    """
    flag = source.flag(role)
    advice = f"name it with {flag}" if flag else f"call it {candidates[0]}"
    if flag and role == "answer":
        advice += f" (or {flag} '' where the verifier needs none)"
    return InputError(
        f"cannot tell which column of {source.dataset} holds the {what}: {advice}; its columns: "
        f"{_listed(table)} (looked for {', '.join(candidates)})"
    )


def _listed(table: _Table) -> str:
    shown = list(table.columns)[:40]
    return ", ".join(shown) + (f" and {len(table.columns) - 40} more" if len(table.columns) > 40 else "")
