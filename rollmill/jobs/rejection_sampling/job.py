"""The generation job of rejection sampling: the run of one model."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from rollmill.generation.chat import ChatRollouts
from rollmill.generation.concurrency import Concurrency
from rollmill.generation.context_length import context_note, own_context, running_context
from rollmill.generation.identity import Identity
from rollmill.generation.job import GenerationJob
from rollmill.generation.manifest import read_manifest
from rollmill.generation.progress import Progress
from rollmill.generation.reverify import reverify, verify_failed
from rollmill.generation.run import PROBLEMS, Run
from rollmill.generation.sampling import Sampling
from rollmill.generation.services import GeneratorContext, Services, model_trials
from rollmill.inference.backend import ServedModel
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.generation_config import sampling_notes
from rollmill.inference.model_identity import model_identity
from rollmill.inference.server import ServerConfig
from rollmill.inference.trial import MODEL, TrialRequest
from rollmill.jobs.rejection_sampling.outcome import RunOutcome, write_outcome
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.training.base_check import check_adapter
from rollmill.problems import LoadedProblems, Prompting, load_problems, load_problems_again
from rollmill.records import Problem
from rollmill.verifiers import CompletionJudge, Verifier, make_verifiers, open_verifiers, problem_fault


@dataclass(frozen=True)
class RejectionSamplingJob(GenerationJob[RunOutcome]):
    """Completions of one model, verified."""

    kind: ClassVar[str] = "reject_sampling"
    recipe_version: ClassVar[int] = 1
    directory_flags: ClassVar[str] = "--model_name or --output_dir"
    needs_verdicts: ClassVar[bool] = True

    parameters: RejectSampling
    model: ServedModel
    prompting: Prompting
    sampling: Sampling

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(self.parameters.output_dir) / self.model.name

    @property
    def name(self) -> str:
        """The run's name, which may have slashes: folders."""
        return self.model.name

    @property
    def server_models(self) -> list[str]:
        """The run's model, unless running servers have it."""
        return [] if self.parameters.external else [self.model.path]

    @property
    def slots(self) -> Concurrency:
        """Most requests in flight on every worker."""
        return self.parameters.slots

    @property
    def notes(self) -> list[str]:
        """Notes where the model's `generation_config.json`, or a server, adds to the sampling parameters."""
        parameters = self.parameters
        return sampling_notes(
            self.sampling.model_dump(), self.model.path, external=parameters.external, vllm_args=parameters.vllm_args
        )

    @property
    def reverify(self) -> bool:
        """True if the completions on disk are scored again, and nothing is generated."""
        return self.parameters.reverify

    @property
    def tries_canary(self) -> bool:
        """True if a few problems are tried first."""
        return self.parameters.canary

    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        """Load the problems. Raises `InputError`, also for a template that names the answer's column."""
        source, parameters = self.parameters.source, self.parameters
        old = read_manifest(self.directory) if parameters.reverify else None
        # Scoring again keeps all problems of the run, also those that the new verifier cannot judge.
        if old is not None and (problems := self.directory / PROBLEMS).is_file():
            loaded = load_problems_again(source, folder, problems, quarantined=int(old.problems["quarantined"]))
        else:
            verifiers = make_verifiers(parameters.verifier, **parameters.readings)
            if source.answer_field is None and all(
                getattr(verifier, "without_answers", False) for verifier in verifiers
            ):
                source = source.model_copy(update={"answer_field": ""})
            fault = partial(first_fault, verifiers)
            loaded = load_problems(source, folder, problem_fault=fault, quarantine_path=quarantine)
        self.prompting.check_columns(loaded.fields)
        return loaded

    def identity(self, loaded: LoadedProblems) -> Identity:
        """Return the identity of the run."""
        generation: dict[str, Any] = {
            "recipe_version": self.recipe_version,
            "model": model_identity(self.model.path),
            "problems": loaded.sha256,
            "prompting": self.prompting.identity,
            "sampling": self.sampling.model_dump(),
        }
        if self.model.adapter is not None:
            generation["adapter"] = self.model.adapter.identity
        return Identity(generation=generation, verification=self.verifiers().identity)

    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        """Return the number of rollouts of the run."""
        return loaded.count * self.parameters.num_rollout

    def verifiers(self) -> CompletionJudge:
        """Return the verifier, not opened yet."""
        parameters = self.parameters
        return open_verifiers(parameters.verifier, **parameters.readings, judge=parameters.judge)

    def trials(self, services: Services) -> dict[str, TrialRequest]:
        """Return the trial request for running servers."""
        return model_trials(self.parameters, services, self.model, self.sampling.request_fields())

    def context_notes(self, run: Run, services: Services) -> list[str]:
        """Return a note if the longest prompts leave no room for answers in the model's context, where it is known."""
        trials = self.trials(services)
        if trials:
            length, count = running_context(trials[MODEL], self.model.path)
        else:
            server = services.server or ServerConfig()
            length, count = own_context(self.model.path, (*server.arguments, *shlex.split(self.parameters.vllm_args)))
        note = context_note(run, self.prompting, max_tokens=self.sampling.max_tokens, length=length, count=count)
        return [note] if note else []

    @contextmanager
    def open_generator(self, context: GeneratorContext) -> Iterator[ChatRollouts]:
        """Serve the model and yield the generator; see `GenerationJob`."""
        with context.serve(self.parameters, self.model, self.changes_for()) as servers:
            yield ChatRollouts(
                ChatClient(EndpointPool(servers.endpoints), servers.client),
                self.verifiers(),
                model=servers.model,
                sampling=self.sampling,
                prompting=self.prompting,
            )

    def score_again(self, run: Run) -> int:
        """Score the completions on disk with the verifier of the parameters; return their number."""
        parameters = self.parameters
        verifiers = make_verifiers(parameters.verifier, **parameters.readings)
        return reverify(run, self.verifiers(), fault=partial(first_fault, verifiers))

    def verify_failed(self, run: Run) -> int:
        """See `GenerationJob`."""
        return verify_failed(run, self.verifiers())

    def for_worker(self) -> Self:
        """Return the job with absolute paths; a running server's name for the model stays."""
        path = Path(self.model.path)
        is_local_folder = path.is_dir() and not self.parameters.external
        model = self.model._replace(
            path=str(path.absolute()) if is_local_folder else self.model.path, log_path=self.model.log_path.absolute()
        )
        output_dir = str(Path(self.parameters.output_dir).absolute())
        return replace(self, parameters=self.parameters.model_copy(update={"output_dir": output_dir}), model=model)

    def report(self, run: Run, progress: Progress) -> RunOutcome:
        """Write results, statistics, plot and training data."""
        return write_outcome(run, self.parameters, self.model, self.sampling, progress=progress)


def jobs(parameters: RejectSampling) -> list[RejectionSamplingJob]:
    """Return the jobs of a call, one for each model, in their order.

    Raises `InputError` for an adapter that is none or has another base, for a verifier, a template or examples that
    cannot be used, and for a model whose recommended sampling cannot be read.
    """
    verifiers = make_verifiers(parameters.verifier, **parameters.readings)
    prompting = Prompting.from_flags(parameters.prompt_template, parameters.few_shot, parameters.system_prompt)
    shows_choices = any(getattr(verifier, "shows_choices", False) for verifier in verifiers)
    log_dir = Path(parameters.log_dir)
    return [
        RejectionSamplingJob(
            parameters,
            model=ServedModel(
                path,
                name,
                log_dir / f"{name.replace('/', '--')}_vllm.log",
                check_adapter(adapter, path) if adapter else None,
            ),
            prompting=prompting.model_copy(
                update={"choices": _has_shown_choices(directory) if parameters.reverify else shows_choices}
            ),
            sampling=parameters.sampling_of(path),
        )
        for path, name, adapter, directory in zip(
            parameters.model_path, parameters.model_name, parameters.adapters, parameters.directories, strict=True
        )
    ]


def _has_shown_choices(directory: Path) -> bool:
    """Return whether the prompts of the run on disk show choices: scoring again does not change its prompts."""
    old = read_manifest(directory)
    return old is not None and bool(old.identity.generation.get("prompting", {}).get("choices", False))


def first_fault(verifiers: Sequence[Verifier], problem: Problem) -> str | None:
    """Return the reason why one of the verifiers cannot judge a problem; None where all can."""
    return next((fault for verifier in verifiers if (fault := problem_fault(verifier, problem))), None)
