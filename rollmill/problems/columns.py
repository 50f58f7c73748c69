"""Columns: which one holds what, decided once, and how a dotted path reaches into nested ones."""

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
"""The first of these that a data set has is the ground truth: names that can only mean it, then an answer of any kind,
then a worked solution; a class or a number that may as well be a rating comes last."""
RESPONSE_COLUMNS = ("response", "answer", "output", "completion")
"""Where a data set may hold an answer as somebody gave it, right or wrong."""
ID_COLUMNS = ("instance_id", "id", "problem_id", "task_id", "uid", "index")
IMAGE_COLUMNS = ("images", "decoded_image", "image")
"""Besides these, numbered ones (`image_1`, `image_2`, ...), all of a row together; or else the one column of a row that
holds images as bytes or data URLs, whatever its name."""
MOST_BAD_IDS = 0.1
"""A column with a larger share of rows whose id is missing, no id, or another row's is no column of ids."""

_NUMBERED_IMAGE = re.compile(r"image([1-9][0-9]?)")


class Columns(NamedTuple):
    """Which column (a dotted path) holds what."""

    prompt: str
    answer: str | None
    id: str | None
    images: str | None

    def to_fields(self) -> dict[str, str]:
        """Return what was taken for prompt, answer, id and images; what there is not is left out."""
        return {role: column for role, column in self._asdict().items() if column is not None}


def get(row: Row, column: str) -> Any | Missing:
    """Return what stands in a column, or `MISSING`. A column whose own name has dots goes before a nested one."""
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def without(row: Row, columns: Iterable[str]) -> Row:
    """Return the row less some columns; of a nested column only the named leaf goes."""
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


def choose_columns(source: ProblemSource, head: Sequence[Row], *, no_ids: Collection[str] = ()) -> Columns:
    """Decide from the first rows which column holds what.

    Names count in any case, with or without `_`, `-` and spaces. A column that the source names must stand in at least
    one of the rows; one that is detected must hold what can be used. One of images may begin later: see
    `ImageColumns`. Raises `InputError`, listing the columns, where a named column is absent or none can be detected.

    Args:
        source: The data set, and what the user says of it.
        head: Its first rows.
        no_ids: Columns that are known to hold no ids.
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
    """Return the first of the candidates, in any case, that holds more than nulls; None where there is none."""
    return _Table(head).first(candidates)


class ImageColumns:
    """Finds the columns that hold the images of each row, so that none is left out because others have none."""

    def __init__(self, columns: Columns, image_field: str) -> None:
        """Look in one column where the user names it, nowhere where they name none, else in those of usual names."""
        self._named = columns.images if image_field not in ("", IMAGE_COLUMNS[0]) else None
        self._looks = image_field == IMAGE_COLUMNS[0]
        self._others = frozenset({columns.prompt, columns.answer, columns.id} - {None})
        self._keys: tuple[str, ...] = ()
        self._groups: list[list[str]] = []
        self.is_missing = self._named is not None
        """Whether the user named a column that no row has had."""

    def of(self, row: Row) -> list[str]:
        """Return the columns that hold the row's images, in order; empty where there are none.

        Raises `UnusableCellError` where none has a usual name, and several hold images.
        """
        if self._named is not None:
            self.is_missing = self.is_missing and get(row, self._named) is MISSING
            return [self._named]
        if not self._looks:
            return []
        keys = tuple(row)
        if keys != self._keys:  # rows of one data set mostly have the same columns
            self._keys, self._groups = keys, self._group(keys)
        for group in self._groups:
            if filled := [column for column in group if not is_no_image(row[column])]:
                return filled
        others = [column for column, value in row.items() if column not in self._others and _is_image(value)]
        if len(others) > 1:
            raise UnusableCellError(others[1], "is one of several columns of images", ", ".join(others)[:200])
        return others

    def _group(self, keys: Sequence[str]) -> list[list[str]]:
        names = {key: normalized(key) for key in keys if key not in self._others}
        alike = ([key for key, name in names.items() if name == normalized(column)][:1] for column in IMAGE_COLUMNS)
        numbered = [(int(match[1]), key) for key, name in names.items() if (match := _NUMBERED_IMAGE.fullmatch(name))]
        return [*alike, [key for _, key in sorted(numbered)]]


def is_no_image(cell: Any) -> bool:
    """Return whether a cell of a column of images says that there is none."""
    return cell is MISSING or cell is None or (isinstance(cell, str | list) and not cell)


def _is_image(value: Any) -> bool:
    """Return whether a value is an image by what it holds: bytes, or a data URL. Paths and addresses only name one."""
    first = value[0] if isinstance(value, list) and value else value
    content = first.get("bytes") if isinstance(first, dict) else first
    if isinstance(content, str):
        return content.startswith("data:image/")
    return isinstance(content, bytes) and media_type(content) is not None


def normalized(name: str) -> str:
    """Return a column's name without case, spaces, `_` and `-`."""
    return re.sub(r"[\s_-]+", "", str(name).casefold())


class _Table:
    """The columns of the first rows, by their names in any case."""

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
        """Return the column of that name, or else in another case; dots may reach into it at any depth."""
        if any(get(row, name) is not MISSING for row in self._head):
            return name
        return next(iter(self._alike.get(normalized(name), ())), None)

    def first(
        self,
        names: Iterable[str],
        read: Callable[[Any, str], object] | None = None,
        others: Collection[str | None] = (),
    ) -> str | None:
        """Return the first column of these names that holds what `read` reads, or else more than nulls.

        Args:
            names: In order.
            read: Raises `UnusableCellError` for a value that cannot be used.
            others: Columns that are taken already.
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
        """Return the first column of ids whose values are such."""
        candidates = [name for name in ID_COLUMNS if self.first([name], None, others) is not None]
        columns = (self.first([name], None, others) for name in candidates)
        return next((column for column in columns if column is not None and self._holds_ids(column)), None)

    def _holds_ids(self, column: str) -> bool:
        values = [get(row, column) for row in self._head]
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
