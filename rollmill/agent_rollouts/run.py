"""The run of an agent rollouts call, and what makes it the run it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rollmill.agent_rollouts.parameters import AgentRollouts
from rollmill.agents.config import read_agent_config
from rollmill.agents.settings import AgentSettings
from rollmill.errors import InputError
from rollmill.files.rows import BadRow, dump_line
from rollmill.files.whole import write_bytes_whole
from rollmill.grading.ladder import read_ladder
from rollmill.grading.problem import GradedProblem
from rollmill.problems import LoadedProblems, ProblemSource, load_problems
from rollmill.problems.data_files import read_data_file
from rollmill.records import Problem
from rollmill.rollouts.identity import Identity
from rollmill.rollouts.lock import lock_directory
from rollmill.rollouts.run import QUARANTINE, Run, loading_folder, open_run
from rollmill.serving.model_identity import model_identity

JOB = "agent_rollouts"
RECIPE_VERSION = 1
"""Raised whenever the code makes other attempts, or other grades, of the same parameters."""
RUN_FLAGS = "--output"


def graded_problem(problem: Problem) -> GradedProblem:
    """A problem with what its grading needs. Raises pydantic's `ValidationError`."""
    statement = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1].get("content", "")
    own = {"instance_id": problem.instance_id, "problem_statement": statement}
    return GradedProblem.model_validate({**problem.fields, **own})


def problem_fault(problem: Problem) -> str | None:
    """Why a problem cannot be worked on; None where it can."""
    try:
        graded_problem(problem)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None


def agent_settings(parameters: AgentRollouts) -> AgentSettings:
    """The agent's configuration, with what the flags change. Raises `InputError` where it cannot be used."""
    settings = read_agent_config(parameters.config).with_overrides(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_tokens=parameters.max_tokens,
        step_limit=parameters.step_limit,
        wall_time_limit_s=parameters.time_limit,
    )
    timeout = parameters.command_timeout
    return settings if timeout is None else settings.model_copy(update={"timeout_s": timeout})


def identity(parameters: AgentRollouts, loaded: LoadedProblems) -> Identity:
    """What makes the run the run it is."""
    generation: dict[str, Any] = {
        "recipe_version": RECIPE_VERSION,
        "model": model_identity(parameters.model),
        "problems": loaded.sha256,
        "agent": agent_settings(parameters).model_dump(mode="json", exclude={"model_name"}),
        "sampling": parameters.sampling.model_dump(),
        "sandbox": {
            "place": parameters.place,
            "memory_mb": parameters.memory_mb,
            "processes": parameters.processes,
        },
        "grading": {
            "where": "service" if parameters.grades_elsewhere else "here",
            "ladder": read_ladder(parameters.ladder).model_dump(mode="json"),
        },
    }
    return Identity(generation=generation, verification={})


def problem_source(parameters: AgentRollouts, folder: Path) -> ProblemSource:
    """Where the problems are; of one that is named by its id a file of its own is made in `folder`.

    Raises `InputError` where there is no such file, or no such problem in it.
    """
    file = parameters.problem_file
    if not Path(file).is_file():
        raise InputError(f"--dataset {file}: there is no such file")
    if parameters.instance_id is not None:
        rows = (row for _, row in read_data_file(file) if not isinstance(row, BadRow))
        found = [row for row in rows if row.get("instance_id") == parameters.instance_id]
        if not found:
            raise InputError(f"--instance {parameters.instance_id}: {file} has no problem of this instance_id")
        file = str(folder / "instance.jsonl")
        write_bytes_whole(Path(file), dump_line(found[0]))
    return ProblemSource(
        dataset=file,
        prompt_field="problem_statement",
        answer_field="",
        id_field="instance_id",
        image_field="",
        max_problems=parameters.max_tasks,
        max_bad_share=parameters.max_bad_share,
    )


def hold(parameters: AgentRollouts) -> AbstractContextManager[None]:
    """Keeps other processes off the run's directory; see `lock_directory`."""
    return lock_directory(parameters.directory, flag=RUN_FLAGS)


@contextmanager
def open_agent_run(parameters: AgentRollouts) -> Iterator[Run]:
    """Loads the problems and opens the run that `hold` holds; raises as `load_problems` and `open_run` do."""
    with loading_folder(parameters.directory) as folder:
        loaded = load_problems(
            problem_source(parameters, folder),
            folder,
            problem_fault=problem_fault,
            quarantine_path=parameters.directory / QUARANTINE,
        )
        opened = open_run(
            parameters.directory,
            job=JOB,
            identity=identity(parameters, loaded),
            parameters=parameters.model_dump(),
            seed=parameters.seed,
            loaded=loaded,
            num_rollout=parameters.samples_per_task,
            retry=parameters.retry,
            flags=RUN_FLAGS,
        )
        with opened as run:
            yield run
