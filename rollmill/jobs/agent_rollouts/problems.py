"""Reads the coding problems of a call."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write_bytes
from rollmill.files.rows import BadRow, dump_line
from rollmill.grading.problem import GradedProblem
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.problems import ProblemSource
from rollmill.problems.data_files import read_data_file
from rollmill.problems.source import FLAGS
from rollmill.records import Problem


def graded_problem(problem: Problem) -> GradedProblem:
    """Return a problem with the fields that grading needs. Raises pydantic's `ValidationError` where one is missing."""
    statement = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1].get("content", "")
    columns = {"instance_id": problem.instance_id, "problem_statement": statement}
    return GradedProblem.model_validate({**problem.fields, **columns})


def problem_fault(problem: Problem) -> str | None:
    """Return the reason why a problem cannot be attempted; None where it can."""
    try:
        graded_problem(problem)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None


def problem_source(parameters: AgentRollouts, folder: Path) -> ProblemSource:
    """Return the source of the problems; with --instance ID, it is a file in `folder` with that problem.

    Raises `InputError` where the file does not exist, or has no such problem.
    """
    file = parameters.problem_file
    if not Path(file).is_file():
        raise InputError(f"--dataset {file}: there is no such file")
    if parameters.instance_id is not None:
        rows = (row for _, row in read_data_file(file) if not isinstance(row, BadRow))
        matches = [row for row in rows if row.get("instance_id") == parameters.instance_id]
        if not matches:
            raise InputError(f"--instance {parameters.instance_id}: {file} has no problem of this instance_id")
        file = str(folder / "instance.jsonl")
        atomic_write_bytes(Path(file), dump_line(matches[0]))
    return source_of(parameters, file)


def source_of(parameters: AgentRollouts, file: str) -> ProblemSource:
    """Return the source of problems in a file, with its columns."""
    return ProblemSource(
        dataset=file,
        prompt_field="problem_statement",
        answer_field="",
        id_field="instance_id",
        image_field="",
        max_problems=parameters.max_problems,
        max_bad_share=parameters.max_bad_share,
        flags={"dataset": FLAGS["dataset"], "max_bad_share": FLAGS["max_bad_share"]},
    )
