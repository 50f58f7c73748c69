"""The run of an agent rollouts call, and what makes it the run it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rollmill.agents.config import read_agent_config
from rollmill.agents.settings import AgentSettings
from rollmill.generation.identity import Identity
from rollmill.generation.lock import lock_directory
from rollmill.generation.run import QUARANTINE, Run, loading_folder, open_run
from rollmill.grading.reward_schedule import read_ladder
from rollmill.inference.model_identity import model_identity
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.agent_rollouts.problems import problem_fault, problem_source
from rollmill.problems import LoadedProblems, load_problems

JOB = "agent_rollouts"
RECIPE_VERSION = 1
"""Raised whenever the code makes other attempts, or other grades, of the same parameters."""
RUN_FLAGS = "--output"


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
            expected=loaded.count * parameters.samples_per_task,
            retry=parameters.retry,
            flags=RUN_FLAGS,
        )
        with opened as run:
            yield run
