"""A generating job: what differs from job to job; one driver runs them all.

A new job is three files: a model of parameters, a subclass of `GenerationJob`, and a flow.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
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
from rollmill.generation.shard import ProblemScheduler, ShardRollouts, ShardRun, ShardScheduler
from rollmill.generation.worker_session import IsGivenUp, log_of_worker, part_session, run_shard
from rollmill.inference.multi_server import device_shares
from rollmill.inference.request_changes import NO_CHANGES, RequestChanges
from rollmill.inference.server import ServerConfig
from rollmill.inference.trial import MODEL, TrialRequest, find_changes
from rollmill.problems import LoadedProblems

OutcomeT = TypeVar("OutcomeT", bound=JobOutcome)
JobT = TypeVar("JobT", bound="GenerationJob[Any]")


class GenerationParameters(Protocol):
    """What every generating job's parameters say."""

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        ...

    @property
    def cluster_block(self) -> str | None:
        """Return the name of a dask-cluster block."""
        ...

    @property
    def gpu_workers(self) -> int | None:
        """Return how many processes here make rollouts; None for the job's own."""
        ...

    @property
    def on_workers(self) -> bool:
        """Tell whether rollouts are made on workers."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """Return all parameters, as the manifest keeps them."""
        ...


@dataclass(frozen=True)
class GenerationJob(ABC, Generic[OutcomeT]):
    """One run of a generating job, resolved from its parameters before anything is started.

    Whatever the parameters name (templates, examples, an agent's configuration, an adapter) is read and checked by the
    subclass when it is made, and is part of the object. Objects are compared by value and pickled: those that are equal
    share a session on a worker. What needs the problems, a server or a sandbox comes later, through the methods.
    """

    kind: ClassVar[str]
    """The job's name in manifests."""
    recipe_version: ClassVar[int]
    """Raised whenever the code makes other rollouts of the same parameters."""
    directory_flags: ClassVar[str] = "--output_dir"
    """The flags that name another run directory, for messages."""
    needs_verdicts: ClassVar[bool] = False
    """Whether a completion that could not be judged is worth nothing: a run of only such ones is an error."""
    shards_ahead: ClassVar[int] = 4
    """Shards in the hands of each worker."""
    shards_at_once: ClassVar[int] = 4
    """Shards that a worker makes at a time. They share its slots, in order: one's stragglers leave none idle."""

    parameters: GenerationParameters
    request_changes: tuple[tuple[str, RequestChanges], ...] = field(default=(), kw_only=True)
    """What running servers want otherwise in the job's requests, by the names of `trials`."""

    @property
    @abstractmethod
    def directory(self) -> Path:
        """Return the run's directory."""

    @property
    @abstractmethod
    def slots(self) -> Concurrency:
        """Return the number of rollouts in flight at most, on every worker; `auto` for what each finds best."""

    @property
    def name(self) -> str:
        """Return what the run is called where its progress is shown."""
        return self.directory.name

    @property
    def retry(self) -> Retry | None:
        """Return which rollouts on disk are made again; None for none."""
        return getattr(self.parameters, "retry", None)

    @property
    def reverify(self) -> bool:
        """Tell whether the completions on disk are scored again, and nothing is made."""
        return False

    @property
    def tries_canary(self) -> bool:
        """Tell whether a few rollouts are made first, to see whether the rest is worth it."""
        return False

    @property
    def notes(self) -> list[str]:
        """Return what a user should know before the start; the manifest keeps it."""
        return []

    @property
    def on_workers(self) -> bool:
        """Tell whether rollouts are made on workers, not in this process."""
        return self.parameters.on_workers

    @abstractmethod
    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        """Load the problems into a folder; rows that cannot be used go to the file `quarantine`.

        Raises `InputError` as `rollmill.problems.load_problems` does.
        """

    @abstractmethod
    def identity(self, loaded: LoadedProblems) -> Identity:
        """Return what makes the run the run it is."""

    @abstractmethod
    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        """Return how many rollouts the whole run has."""

    @abstractmethod
    def report(self, run: Run, progress: Progress) -> OutcomeT:
        """Write the results from the journal, and note the run's end in its manifest."""

    def trials(self, services: Services) -> dict[str, TrialRequest]:
        """Return the requests to running servers that are tried before the run, by whose they are; none by itself."""
        return {}

    def context_notes(self, run: Run, services: Services) -> list[str]:
        """Return what a user should know of prompts that do not fit into the model's context; nothing by itself."""
        return []

    def changes_for(self, name: str = MODEL) -> RequestChanges:
        """Return what running servers want otherwise in the requests of one of `trials`."""
        return dict(self.request_changes).get(name, NO_CHANGES)

    def open_generator(self, context: GeneratorContext) -> AbstractContextManager[RolloutGenerator[Any]]:
        """Open what makes rollouts, with the servers and sandboxes that it needs, for the time of a block.

        Raises `ServingError` or `InputError` where the model cannot be asked here.
        """
        raise NotImplementedError

    def score_again(self, run: Run) -> int:
        """Score the completions on disk again, where the job verifies some; return how many."""
        raise NotImplementedError

    def verify_failed(self, run: Run) -> int:
        """Judge again, for `--retry failed`, what only a verifier failed on; return how many have a verdict now."""
        return 0

    def for_worker(self) -> Self:
        """Return the job as a process in another folder, on another machine, can do it: paths are absolute."""
        return self

    def progress(self, run: Run) -> Progress:
        """Return the progress of a run that is just opened."""
        return progress_of(run)

    def scheduler(self, run: Run, progress: Progress) -> ShardScheduler[Any]:
        """Return what cuts the run into shards for workers, and journals what comes back."""
        return ProblemScheduler(run, progress)

    def worker_environments(self, services: Services) -> list[dict[str, str]]:
        """Return what is laid over the environment of each process here that makes rollouts.

        Raises `InputError` as `device_shares` does.
        """
        return device_shares(self.parameters.gpu_workers or 1, services.server or ServerConfig())

    def make_shard(
        self,
        shard: Any,
        find_services: Callable[[], Services],
        *,
        caller: str,
        is_given_up: IsGivenUp | None = None,
    ) -> ShardRollouts:
        """Make a shard on a worker, whose session, with its servers, stays for the next one of an equal job.

        Args:
            shard: What is to be made.
            find_services: Reads the parameters' blocks; called where a session is opened.
            caller: Names the run's process: one that a worker has refused is refused again at once.
            is_given_up: Says when nobody waits for the shard any more.
        """
        opening = partial(self._open_session, find_services)
        return run_shard(self, opening, shard, caller=caller, is_given_up=is_given_up)

    @contextmanager
    def _open_session(
        self, find_services: Callable[[], Services], part: ShardRun, is_given_up: IsGivenUp
    ) -> Iterator[RolloutSession[ShardRun]]:
        context = GeneratorContext(find_services(), is_given_up, log_of_worker)
        with (
            self.open_generator(context) as rollouts,
            part_session(part, rollouts, slots=self.slots, is_given_up=is_given_up) as session,
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
        changes = changes_on_disk(job)
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


def changes_on_disk(job: GenerationJob[Any]) -> dict[str, RequestChanges] | None:
    """Return with what changes of its requests a job's run was begun; None where there is no run."""
    manifest = read_manifest(job.directory)
    return None if manifest is None else manifest.request_changes


def adapted_to_servers(job: JobT, services: Services | None = None) -> JobT:
    """Return a job with its requests as its running servers take them: one short request is tried on each.

    Raises `InputError` where they refuse what makes the distribution that is sampled from and `--drop_params` is not
    given, or take another part of it than when the run was begun; and as `find_changes` does.
    """
    trials = job.trials(services or Services())
    begun = changes_on_disk(job)
    known = begun or {}
    found = {name: find_changes(trial, begun=known.get(name, NO_CHANGES)) for name, trial in trials.items()}
    if begun is not None and _left_out(begun) != _left_out(found):
        raise InputError(
            f"{job.directory} holds a run whose requests leave out {_left_out(begun) or 'nothing'}, and now the "
            f"servers refuse {_left_out(found) or 'nothing'}: give another {job.directory_flags}, or the servers of "
            "before"
        )
    return replace(job, request_changes=tuple((name, changes) for name, changes in found.items() if changes.differs))


def _left_out(changes: Mapping[str, RequestChanges]) -> dict[str, list[str]]:
    return {name: sorted(each.of_sampling) for name, each in changes.items() if each.of_sampling}


def _with_left_out(identity: Identity, changes: Mapping[str, RequestChanges]) -> Identity:
    """Return an identity with what requests leave out of the sampling, where they do."""
    left_out = _left_out(changes)
    if not left_out:
        return identity
    return identity.model_copy(update={"generation": {**identity.generation, "left_out": left_out}})


def _change_notes(changes: Mapping[str, RequestChanges]) -> list[str]:
    return [note if name == MODEL else f"{name}: {note}" for name, each in changes.items() for note in each.notes()]


def check_problems(job: GenerationJob[Any]) -> LoadedProblems:
    """Load a job's problems and forget them, before hours of other work: raises `InputError` as its run would.

    The job's directory is left alone: a training refuses a folder that holds anything else. Of the temporary folder
    nothing stays, but for a file of refused rows that the message names.
    """
    folder = Path(tempfile.mkdtemp(prefix="rollmill-problems-"))
    quarantine = folder / QUARANTINE
    refused = False
    try:
        return job.load_problems(folder, quarantine)
    except InputError as error:
        refused = str(quarantine) in str(error)
        raise
    finally:
        if not refused:
            shutil.rmtree(folder, ignore_errors=True)
