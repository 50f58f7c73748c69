"""The run of a collection, and what makes it the run it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rollmill.environments.environment import Environment
from rollmill.environments.registry import find_environment
from rollmill.errors import InputError
from rollmill.generation.identity import Identity
from rollmill.generation.lock import lock_directory
from rollmill.generation.run import QUARANTINE, Run, loading_folder, open_run
from rollmill.jobs.episodes.override_values import close_to
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.policy_assignment import cast_agents, policies_identity, policies_of
from rollmill.problems import LoadedProblems, ProblemSource, load_problems

JOB = "collect_episodes"
RECIPE_VERSION = 1
"""Raised whenever the code makes other episodes of the same parameters and the same version of the environment."""
RUN_FLAGS = "--output_dir"


def hold(parameters: CollectEpisodes) -> AbstractContextManager[None]:
    """Keeps other processes off the run's directory; see `lock_directory`."""
    return lock_directory(parameters.directory, flag=RUN_FLAGS)


@contextmanager
def open_collection(parameters: CollectEpisodes) -> Iterator[Run]:
    """Loads the problems and opens the run that `hold` holds.

    Raises `InputError` for an environment, a setting, a policy or an agent that is none, and as `load_problems` and
    `open_run` do.
    """
    environment = find_environment(parameters.env_name)
    settings = environment_settings(parameters, environment)
    with loading_folder(parameters.directory) as folder:
        loaded = load_problems(
            _source(parameters, environment, settings, folder),
            folder,
            problem_fault=partial(environment.problem_fault, settings),
            quarantine_path=parameters.directory / QUARANTINE,
        )
        opened = open_run(
            parameters.directory,
            job=JOB,
            identity=identity(parameters, environment, settings, loaded),
            parameters=parameters.model_dump(),
            seed=parameters.seed,
            loaded=loaded,
            expected=parameters.num_episodes,
            retry=parameters.retry,
            flags=RUN_FLAGS,
        )
        with opened as run:
            yield run


def identity(
    parameters: CollectEpisodes, environment: type[Environment], settings: Any, loaded: LoadedProblems
) -> Identity:
    """What makes the run the run it is; how many episodes there are is no part of it."""
    own = getattr(environment, "identity", None)
    specs = policies_of(parameters)
    generation: dict[str, Any] = {
        "recipe_version": RECIPE_VERSION,
        "problems": loaded.sha256,
        "environment": {
            "name": environment.name,
            "version": environment.version,
            "settings": settings.model_dump(mode="json"),
            **({"search": "service"} if _searches_elsewhere(parameters, environment) else own(settings) if own else {}),
        },
        "max_turns": parameters.max_turns,
        "policies": policies_identity(specs),
        "agents": cast_agents(specs, environment.agent_names(settings), parameters),
        "sandbox": _sandbox(parameters) if "python" in environment.needs else None,
        "sampling": {
            "max_tokens": max((spec.sampling.max_tokens for spec in specs), default=0),
            "seed": parameters.seed,
        },
    }
    return Identity(generation=generation, verification={})


def environment_settings(parameters: CollectEpisodes, environment: type[Environment]) -> Any:
    """The environment's settings. Raises `InputError` for one that it does not have, or a value that it cannot."""
    try:
        return environment.Settings.model_validate(parameters.env_settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = environment.Settings.model_fields
            raise InputError(f"--env {key}: {environment.name} has no such setting{close_to(key, known)}") from error
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"--env {key + '=' if key else ''}{first['input']}: {said}") from error


def _source(parameters: CollectEpisodes, environment: type[Environment], settings: Any, folder: Path) -> ProblemSource:
    """The user's data set, or the problems that the environment brings."""
    if parameters.source is not None:
        if parameters.answer_field is None and getattr(environment, "without_answers", False):
            return parameters.source.model_copy(update={"answer_field": ""})
        return parameters.source
    if _searches_elsewhere(parameters, environment):
        raise InputError(
            f"--dataset: required with a search service: the questions that {environment.name} brings are on a corpus "
            "of its own"
        )
    own = environment.source(settings, folder)
    return own.model_copy(update={"max_problems": parameters.max_data, "max_bad_share": parameters.max_bad_share})


def _searches_elsewhere(parameters: CollectEpisodes, environment: type[Environment]) -> bool:
    return "search" in environment.needs and bool(parameters.search_server or parameters.search_block)


def _sandbox(parameters: CollectEpisodes) -> dict[str, Any]:
    return {
        "place": parameters.place,
        "image": parameters.sandbox_image,
        "timeout_s": parameters.code_timeout,
        "memory_mb": parameters.memory_mb,
        "processes": parameters.processes,
    }
