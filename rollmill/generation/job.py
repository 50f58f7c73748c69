"""The interface of a generating job, and the functions that open its run.

A new job is three files: a model of parameters, a subclass of `GenerationJob`, and a flow.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from rollmill.errors import InputError
from rollmill.generation.concurrency import Concurrency
from rollmill.generation.identity import Identity
from rollmill.generation.lock import lock_directory
from rollmill.generation.manifest import read_manifest
from rollmill.generation.outcome import JobOutcome
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.run import QUARANTINE, Retry, Run, loading_folder, open_run
from rollmill.generation.services import GeneratorContext, Services
from rollmill.generation.session import RolloutGenerator, RolloutSession
from rollmill.generation.shard import ProblemScheduler, ShardRollouts, ShardScheduler, WorkerRun
from rollmill.generation.worker_session import IsGivenUp, run_shard, worker_log, worker_session_of
from rollmill.inference.devices import VISIBLE
from rollmill.inference.gpu_reservation import free_gpus
from rollmill.inference.placement import Placement, place_in_process, place_workers
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.server import ServerConfig
from rollmill.inference.server_size import check_heads, server_size
from rollmill.inference.trial import MODEL, TrialRequest, find_changes
from rollmill.inference.visible_gpus import VisibleGpus
from rollmill.problems import LoadedProblems

OutcomeT = TypeVar("OutcomeT", bound=JobOutcome)
JobT = TypeVar("JobT", bound="GenerationJob[Any]")


class GenerationParameters(Protocol):
    """The parameters that all generating jobs have."""

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        ...

    @property
    def cluster_block(self) -> str | None:
        """Return the name of a dask-cluster block; None to use no cluster."""
        ...

    @property
    def gpu_workers(self) -> int | None:
        """Return the number of worker processes on this machine; None to use the job's own process."""
        ...

    @property
    def on_workers(self) -> bool:
        """Return whether rollouts are made on workers."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """Return all parameters as they are written to the manifest."""
        ...


@dataclass(frozen=True)
class GenerationJob(ABC, Generic[OutcomeT]):
    """One run of a generating job, with everything that its parameters name resolved before anything starts.

    A subclass reads and checks templates, few-shot examples, an agent's configuration or an adapter when it is
    constructed, and keeps their content. Jobs are compared by value and pickled: equal ones share a session on a
    worker. What needs the problems, a server or a sandbox is done later, by the methods.
    """

    kind: ClassVar[str]
    """The job's name in manifests."""
    recipe_version: ClassVar[int]
    """To be raised whenever a change of the code makes other rollouts from the same parameters."""
    directory_flags: ClassVar[str] = "--output_dir"
    """The command line flags that choose the run directory, for messages."""
    needs_verdicts: ClassVar[bool] = False
    """Whether completions without a verdict count as failed: a run that has only those is an error."""
    shards_ahead: ClassVar[int] = 4
    """Shards that are queued for each worker."""
    shards_at_once: ClassVar[int] = 4
    """Shards that a worker makes concurrently. They share its slots, so that stragglers of one leave no slot idle."""

    parameters: GenerationParameters
    request_changes: tuple[tuple[str, RequestChanges], ...] = field(default=(), kw_only=True)
    """Changes that running servers require in the job's requests, by the names of `trials`."""

    @property
    @abstractmethod
    def directory(self) -> Path:
        """Return the run's directory."""

    @property
    @abstractmethod
    def slots(self) -> Concurrency:
        """Return the limit of rollouts in flight on each worker; `auto` to let each worker search for the best."""

    @property
    def name(self) -> str:
        """Return the run's name in progress displays."""
        return self.directory.name

    @property
    def retry(self) -> Retry | None:
        """Return which journaled rollouts are sampled again; None for none."""
        return getattr(self.parameters, "retry", None)

    @property
    def reverify(self) -> bool:
        """Return whether the journaled completions are only scored again, without sampling."""
        return False

    @property
    def tries_canary(self) -> bool:
        """Return whether a canary of a few rollouts is made and judged first."""
        return False

    @property
    def notes(self) -> list[str]:
        """Return the notes that are shown at the start and written to the manifest."""
        return []

    @property
    def on_workers(self) -> bool:
        """Return whether rollouts are made on workers, not in this process."""
        return self.parameters.on_workers

    @abstractmethod
    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        """Load the problems into a folder; unusable rows go to the file `quarantine`.

        Raises `InputError` as `rollmill.problems.load_problems` does.
        """

    @abstractmethod
    def identity(self, loaded: LoadedProblems) -> Identity:
        """Return the identity of the run: what determines its outputs."""

    @abstractmethod
    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        """Return the number of rollouts of the complete run."""

    @abstractmethod
    def report(self, run: Run, progress: Progress) -> OutcomeT:
        """Write the results from the journal, and record the end of the run in its manifest."""

    def trials(self, services: Services) -> dict[str, TrialRequest]:
        """Return the requests to try on running servers before the run, by model role; by default none."""
        return {}

    def context_notes(self, run: Run, services: Services) -> list[str]:
        """Return notes on prompts that do not fit into the model's context; by default none."""
        return []

    def changes_for(self, name: str = MODEL) -> RequestChanges:
        """Return the changes that running servers require in the requests of one of `trials`."""
        return dict(self.request_changes).get(name, NO_CHANGES)

    def open_generator(self, context: GeneratorContext) -> AbstractContextManager[RolloutGenerator[Any]]:
        """Open the rollout generator, with its servers and sandboxes; they are closed at the end of the block.

        Raises `ServingError` or `InputError` where this machine cannot serve or reach the model.
        """
        raise NotImplementedError

    def score_again(self, run: Run) -> int:
        """Score the journaled completions again, in a job that has a verifier; return how many."""
        raise NotImplementedError

    def verify_failed(self, run: Run) -> int:
        """Verify again, for `--retry failed`, what only the verifier failed on; return how many have a verdict now."""
        return 0

    def for_worker(self) -> Self:
        """Return the job for a process in another folder or on another machine: with absolute paths."""
        return self

    def progress(self, run: Run) -> Progress:
        """Return a progress counter for a run that was just opened."""
        return progress_of(run)

    def scheduler(self, run: Run, progress: Progress) -> ShardScheduler[Any]:
        """Return the scheduler that cuts the run into shards for workers, and journals their results."""
        return ProblemScheduler(run, progress)

    @property
    def server_models(self) -> list[str]:
        """Return the model of each server that a process of the job starts; none where running servers are used."""
        return [] if getattr(self.parameters, "external", True) else [getattr(self.parameters, "model_path", "")]

    def placement(self, services: Services, environment: Mapping[str, str] | None = None) -> Placement:
        """Return the GPUs of the processes on this machine: of the workers, else of this process's servers.

        Raises `InputError` as `place_workers`, `place_servers` and `check_heads` do, and where a block sets the GPUs of
        all workers.
        """
        config, workers, models = services.server or ServerConfig(), self.parameters.gpu_workers, self.server_models
        if workers is not None and workers > 1 and VISIBLE in config.environment and models:
            raise InputError(
                f"--gpu_workers {workers}: --server_block sets {VISIBLE}, so that all servers would use the same GPUs: "
                "leave it out of the block"
            )
        vllm_args = shlex.split(getattr(self.parameters, "vllm_args", ""))
        size = server_size((*config.arguments, *vllm_args))
        variables = {**(os.environ if environment is None else environment), **config.environment}
        gpus = free_gpus(variables, shared=size.memory is not None) if models else VisibleGpus()
        if workers is None:
            placement = place_in_process(gpus, len(models), size)
        else:
            placement = place_workers(gpus, workers, len(models), size)
        for model in models:
            check_heads(model, size)
        return placement

    def worker_environments(self, services: Services) -> Sequence[Mapping[str, str]]:
        """Return the additional environment variables of each worker process on this machine, such as its GPUs.

        Raises `InputError` as `placement` does, and where the GPUs cannot be used.
        """
        return self.placement(services).environments

    def make_shard(
        self,
        shard: Any,
        find_services: Callable[[], Services],
        *,
        caller: str,
        is_given_up: IsGivenUp | None = None,
    ) -> ShardRollouts:
        """Make a shard on a worker; its session and servers stay open for the next shard of an equal job.

        Args:
            shard: The rollouts to make.
            find_services: Loads the blocks that the parameters name; called only when a session is opened.
            caller: Identifies the process that has the run: a refusal of this worker is repeated to it at once.
            is_given_up: Returns True when the shard's result is not needed any more; None for never.
        """
        opening = partial(self._open_session, find_services)
        return run_shard(self, opening, shard, caller=caller, is_given_up=is_given_up)

    @contextmanager
    def _open_session(
        self, find_services: Callable[[], Services], part: WorkerRun, is_given_up: IsGivenUp
    ) -> Iterator[RolloutSession[WorkerRun]]:
        context = GeneratorContext(find_services(), is_given_up, worker_log)
        with (
            self.open_generator(context) as rollouts,
            worker_session_of(part, rollouts, slots=self.slots, is_given_up=is_given_up) as session,
        ):
            yield session


@contextmanager
def opened_run(job: GenerationJob[Any]) -> Iterator[Run]:
    """Lock the job's directory, load its problems, and open or continue its run.

    Raises `InputError` where another process has the directory, where another run is in it, and as the job's
    `load_problems` does.
    """
    with lock_directory(job.directory, flag=job.directory_flags), loading_folder(job.directory) as folder:
        loaded = job.load_problems(folder, job.directory / QUARANTINE)
        changes = read_request_changes(job)
        # A continued run keeps the changes it began with: they are part of what its rows were sampled from.
        changes = dict(job.request_changes) if changes is None else changes
        with open_run(
            job.directory,
            job=job.kind,
            identity=_with_left_out(job.identity(loaded), changes),
            parameters=job.parameters.model_dump(),
            seed=job.parameters.seed,
            loaded=loaded,
            expected=job.expected_rollouts(loaded),
            retry=job.retry,
            reverify=job.reverify,
            flags=job.directory_flags,
            notes=[*job.notes, *_change_notes(changes)],
            request_changes=changes,
        ) as run:
            yield run


def read_request_changes(job: GenerationJob[Any]) -> dict[str, RequestChanges] | None:
    """Return the request changes that the manifest of a job's run records; None where there is no run."""
    manifest = read_manifest(job.directory)
    return None if manifest is None else manifest.request_changes


def adapt_to_servers(job: JobT, services: Services | None = None) -> JobT:
    """Return the job with the request changes that its running servers require; tries one short request on each.

    Raises `InputError` where servers refuse a sampling parameter and `--drop_params` is not given, or where they refuse
    other sampling parameters than when the run began; and as `find_changes` does.
    """
    trials = job.trials(services or Services())
    begun = read_request_changes(job)
    known = begun or {}
    current = {name: find_changes(trial, begun=known.get(name, NO_CHANGES)) for name, trial in trials.items()}
    if begun is not None and _left_out(begun) != _left_out(current):
        raise InputError(
            f"{job.directory} holds a run whose requests leave out {_left_out(begun) or 'nothing'}, and now the "
            f"servers refuse {_left_out(current) or 'nothing'}: give another {job.directory_flags}, or the servers of "
            "before"
        )
    return replace(job, request_changes=tuple((name, changes) for name, changes in current.items() if changes.differs))


def _left_out(changes: Mapping[str, RequestChanges]) -> dict[str, list[str]]:
    return {name: sorted(each.of_sampling) for name, each in changes.items() if each.of_sampling}


def _with_left_out(identity: Identity, changes: Mapping[str, RequestChanges]) -> Identity:
    """Return the identity with the sampling parameters that requests leave out, if there are any."""
    left_out = _left_out(changes)
    if not left_out:
        return identity
    return identity.model_copy(update={"generation": {**identity.generation, "left_out": left_out}})


def _change_notes(changes: Mapping[str, RequestChanges]) -> list[str]:
    return [note if name == MODEL else f"{name}: {note}" for name, each in changes.items() for note in each.notes()]


def check_problems(job: GenerationJob[Any]) -> LoadedProblems:
    """Load a job's problems into a temporary folder, to raise `InputError` before hours of other work.

    The job's directory is not touched: training refuses a folder that is not empty. The temporary folder is deleted,
    unless the error message names the file of quarantined rows in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="rollmill-problems-"))
    quarantine = folder / QUARANTINE
    is_named = False
    try:
        return job.load_problems(folder, quarantine)
    except InputError as error:
        is_named = str(quarantine) in str(error)
        raise
    finally:
        if not is_named:
            shutil.rmtree(folder, ignore_errors=True)
