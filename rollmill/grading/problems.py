"""Reads a dataset of problems that are graded by tests and speed."""

from __future__ import annotations

from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.files.rows import BadRow
from rollmill.grading.problem import GradedProblem
from rollmill.problems.data_files import read_data_file


def read_graded_problems(path: str) -> dict[str, GradedProblem]:
    """Read the problems of a JSON, JSON Lines or Parquet file, by `instance_id`, in the file's order.

    Raises `InputError`, with file, row and field, for the first row that is no problem, for a duplicate id, and for a
    file that cannot be read or is empty.
    """
    problems: dict[str, GradedProblem] = {}
    rows_of: dict[str, int] = {}
    for number, row in read_data_file(path):
        problem = row if isinstance(row, BadRow) else _read_row(number, row)
        if isinstance(problem, BadRow):
            field = f", {problem.field}" if problem.field else ""
            raise InputError(f"{path} row {number}{field}: {problem.reason}")
        if problem.instance_id in problems:
            first = rows_of[problem.instance_id]
            raise InputError(
                f"{path} row {number}, instance_id: {problem.instance_id!r} stands already in row {first}: "
                "give every problem its own"
            )
        problems[problem.instance_id] = problem
        rows_of[problem.instance_id] = number
    if not problems:
        raise InputError(f"{path} holds no problem")
    return problems


def _read_row(number: int, row: dict[str, object]) -> GradedProblem | BadRow:
    try:
        problem = GradedProblem.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        return BadRow(number, ".".join(map(str, first["loc"])) or None, first["msg"], str(row))
    for field in ("instance_id", "problem_statement", "image_name"):
        if not str(getattr(problem, field)).strip():
            return BadRow(number, field, "is empty", str(row))
    return problem
