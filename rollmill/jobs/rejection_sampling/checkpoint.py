"""One model of a rejection sampling call, its folder, and what makes its run the run it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.generation.identity import Identity
from rollmill.generation.lock import lock_directory
from rollmill.generation.run import QUARANTINE, Run, loading_folder, open_run
from rollmill.inference.adapter import Adapter
from rollmill.inference.backend import ServedModel
from rollmill.inference.model_identity import model_identity
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.training.base_check import check_adapter
from rollmill.problems import LoadedProblems, Prompting, load_problems
from rollmill.verifiers import VerifierPool, make_verifier, problem_fault

JOB = "reject_sampling"
RECIPE_VERSION = 1
"""Raised whenever the code makes other rollouts of the same parameters."""


class Checkpoint(NamedTuple):
    """One model of a call."""

    path: str
    name: str
    directory: Path
    log_path: Path
    adapter: Adapter | None = None
    """Served on the model in `path`."""

    @property
    def model(self) -> ServedModel:
        """What is served for it."""
        return ServedModel(self.path, self.name, self.log_path, self.adapter)


def checkpoints(parameters: RejectSampling) -> list[Checkpoint]:
    """The models of a call, in its order. Raises `InputError` for an adapter that is none, or another base's."""
    return [
        Checkpoint(
            path=path,
            name=name,
            directory=Path(parameters.output_dir) / name,
            log_path=Path(parameters.log_dir) / f"{name.replace('/', '--')}_vllm.log",
            adapter=check_adapter(adapter, path) if adapter else None,
        )
        for path, name, adapter in zip(parameters.model_path, parameters.model_name, parameters.adapters, strict=True)
    ]


def prompting(parameters: RejectSampling) -> Prompting:
    """How problems become messages. Raises `InputError` for a template or examples that cannot be used."""
    return Prompting.from_flags(parameters.prompt_template, parameters.few_shot, parameters.system_prompt)


def verifier_pool(parameters: RejectSampling) -> VerifierPool:
    """The verifier, ready to be opened. Raises `InputError` where there is none of that name."""
    return VerifierPool(parameters.verifier, accept_error=parameters.accept_error)


def identity(parameters: RejectSampling, checkpoint: Checkpoint, loaded: LoadedProblems) -> Identity:
    """What makes the run the run it is."""
    generation: dict[str, Any] = {
        "recipe_version": RECIPE_VERSION,
        "model": model_identity(checkpoint.path),
        "problems": loaded.sha256,
        "prompting": prompting(parameters).identity,
        "sampling": parameters.sampling.model_dump(),
    }
    if checkpoint.adapter is not None:
        generation["adapter"] = checkpoint.adapter.identity
    return Identity(generation=generation, verification=verifier_pool(parameters).identity)


def hold(checkpoint: Checkpoint) -> AbstractContextManager[None]:
    """Keeps other processes off the run's directory; see `lock_directory`."""
    return lock_directory(checkpoint.directory)


@contextmanager
def open_checkpoint_run(parameters: RejectSampling, checkpoint: Checkpoint) -> Iterator[Run]:
    """Loads the problems and opens the run that `hold` holds; raises as `load_problems` and `open_run` do."""
    verifier = make_verifier(parameters.verifier, accept_error=parameters.accept_error)
    with loading_folder(checkpoint.directory) as folder:
        loaded = load_problems(
            parameters.source,
            folder,
            problem_fault=partial(problem_fault, verifier),
            quarantine_path=checkpoint.directory / QUARANTINE,
        )
        prompting(parameters).check_columns(loaded.fields)
        opened = open_run(
            checkpoint.directory,
            job=JOB,
            identity=identity(parameters, checkpoint, loaded),
            parameters=parameters.model_dump(),
            seed=parameters.seed,
            loaded=loaded,
            expected=loaded.count * parameters.num_rollout,
            retry=parameters.retry,
            reverify=parameters.reverify,
        )
        with opened as run:
            yield run
