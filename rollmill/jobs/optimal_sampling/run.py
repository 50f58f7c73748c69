"""The run of a q* sampling call, and what makes it the run it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.files.rows import dump_line
from rollmill.generation.identity import Identity
from rollmill.generation.lock import lock_directory
from rollmill.generation.run import QUARANTINE, Run, loading_folder, open_run
from rollmill.generation.tally import RolloutOutcome
from rollmill.inference.adapter import ADAPTER_CONFIG, read_adapter
from rollmill.inference.model_identity import model_identity
from rollmill.jobs.optimal_sampling.datasets import load_data_set, response_column
from rollmill.jobs.optimal_sampling.hint import Hint
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.progress import SamplingProgress
from rollmill.jobs.optimal_sampling.sampler import ShardSamples
from rollmill.jobs.training.base_check import check_adapter
from rollmill.problems import LoadedProblems

JOB = "optimal_sampling"
RECIPE_VERSION = 1
"""Raised whenever the code draws other samples of the same parameters."""
RUN_FLAGS = "--output"


def hold(parameters: OptimalSampling) -> AbstractContextManager[None]:
    """Keeps other processes off the run's directory; see `lock_directory`."""
    return lock_directory(parameters.directory, flag=RUN_FLAGS)


@contextmanager
def open_sampling(parameters: OptimalSampling) -> Iterator[Run]:
    """Loads the data set and opens the run that `hold` holds. Which rows this call draws for is no part of the run.

    Raises `InputError` for models and a hint that cannot be, and as `load_data_set` and `open_run` do.
    """
    models = models_identity(parameters)
    with loading_folder(parameters.directory) as folder:
        loaded = load_data_set(parameters, folder, parameters.directory / QUARANTINE)
        opened = open_run(
            parameters.directory,
            job=JOB,
            identity=identity(parameters, models, loaded),
            parameters=parameters.model_dump(),
            seed=parameters.seed,
            loaded=loaded,
            expected=loaded.count,
            flags=RUN_FLAGS,
        )
        with opened as run:
            yield run


def identity(parameters: OptimalSampling, models: dict[str, Any], loaded: LoadedProblems) -> Identity:
    """What makes the run the run it is: all that decides a sample's bytes."""
    column = response_column(parameters, loaded.path)
    sampling = ("max_new_tokens", "temperature", "top_p", "top_k", "support_top_k", "support_top_p", "seed")
    generation: dict[str, Any] = {
        "recipe_version": RECIPE_VERSION,
        **models,
        "problems": loaded.sha256,
        "columns": loaded.fields,
        "hint": _hint(parameters, column),
        "alpha_method": parameters.alpha_method,
        "fixed_alpha": parameters.fixed_alpha if parameters.alpha_method == "fixed" else None,
        "alpha_tol": parameters.alpha_tol,
        "sampling": {
            **{name: getattr(parameters, name) for name in sampling},
            "max_tokens": 0,  # what was cut off is not drawn again under another limit: that is another run
        },
        "backend": parameters.backend,
        "dtype": parameters.dtype,
        "batch_size": parameters.batch_size,
        "shard_size": parameters.shard_size,
    }
    return Identity(generation=generation, verification={})


def models_identity(parameters: OptimalSampling) -> dict[str, Any]:
    """Both models' content, with their adapters'.

    Raises `InputError` for a directory that is not there, and for an adapter of another base.
    """
    given = parameters.model_t or parameters.model_theta
    return {
        **_model_identity(parameters.model_theta, parameters.adapter_theta, "theta"),
        **_model_identity(given, parameters.adapter_t, "t"),
    }


def _model_identity(model: str, adapter: str | None, side: str) -> dict[str, str | None]:
    if model.startswith(("/", "./", "../")) and not Path(model).is_dir():
        raise InputError(f"--model_{side} {model}: there is no such directory")
    if (Path(model) / ADAPTER_CONFIG).is_file():
        if adapter is not None:
            raise InputError(
                f"--model_{side} {model} is an adapter itself: give its base, or leave out --adapter_{side}"
            )
        model, adapter = read_adapter(model).base, model
    found = None if adapter is None else check_adapter(adapter, model).identity
    return {f"model_{side}": model_identity(model), f"adapter_{side}": found}


def _hint(parameters: OptimalSampling, column: str | None) -> dict[str, str | None] | None:
    if parameters.hint is None:
        return None
    hint = Hint.from_flag(parameters.hint)
    return {"template": hint.template, "response": column if "response" in hint.columns else None}


def journal_samples(run: Run, samples: ShardSamples, progress: SamplingProgress) -> None:
    """Writes a shard's rows to the journal, and counts them; the manifest says on what they were drawn."""
    if samples.used is not None:
        run.note_device(samples.used, samples.process)
    for row in samples.rows:
        run.journal.append(row["instance_id"], row["sample_id"], dump_line(row), RolloutOutcome.of_row(row))
        progress.observe(row)
    run.journal.sync()
