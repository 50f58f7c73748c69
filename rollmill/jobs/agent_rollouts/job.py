"""The generation job of agent rollouts: the agent, its sandboxes, the grading, the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from rollmill.agents.config import read_agent_config
from rollmill.agents.model import chat_fields
from rollmill.agents.settings import AgentSettings
from rollmill.generation.identity import Identity
from rollmill.generation.job import GenerationJob
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.sampling import Sampling
from rollmill.generation.services import GeneratorContext, Services, model_trials
from rollmill.grading.evaluation import Grader
from rollmill.grading.grader import LocalGrader
from rollmill.grading.remote import TOKEN_VARIABLE as EVALUATION_TOKEN
from rollmill.grading.remote import RemoteGrader
from rollmill.grading.reward_schedule import RewardSchedule, read_ladder
from rollmill.inference.backend import ServedModel
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.generation_config import sampling_notes
from rollmill.inference.http_service import ServiceConfig, service_url, token_from_environment
from rollmill.inference.model_identity import model_identity
from rollmill.inference.trial import TrialRequest
from rollmill.jobs.agent_rollouts.generator import AgentRolloutGenerator
from rollmill.jobs.agent_rollouts.outcome import AgentOutcome, write_outcome
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.agent_rollouts.problems import problem_fault, problem_source
from rollmill.problems import LoadedProblems, load_problems
from rollmill.sandboxes.registry import HostSettings, open_host
from rollmill.sandboxes.remote import TOKEN_VARIABLE as SANDBOX_TOKEN
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import Limits, SandboxHost


@dataclass(frozen=True)
class AgentRolloutsJob(GenerationJob[AgentOutcome]):
    """Attempts of an agent at coding problems, graded by tests and speed."""

    kind: ClassVar[str] = "agent_rollouts"
    recipe_version: ClassVar[int] = 1
    directory_flags: ClassVar[str] = "--output"

    parameters: AgentRollouts
    settings: AgentSettings
    """The agent's configuration, with the changes of flags."""
    ladder: RewardSchedule
    """Rewards by speedup."""
    sampling: Sampling
    """Sampling parameters of flags, or recommended by the model; the agent's configuration may add more to requests."""

    @classmethod
    def of(cls, parameters: AgentRollouts) -> Self:
        """Resolve the parameters.

        Raises `InputError` where the agent's configuration, the ladder or the model's recommendations cannot be used.
        """
        settings = read_agent_config(parameters.config)
        # Parameters that the agent's configuration sets win over the model's recommendation. Not these three: flags
        # always have a value for them, which wins over the configuration.
        set_by_agent = frozenset(settings.request) - {"temperature", "top_p", "max_tokens"}
        sampling = parameters.sampling_of(parameters.model_path, set_by_user=set_by_agent)
        settings = settings.with_overrides(
            sampling.request_fields(),
            step_limit=parameters.step_limit,
            wall_time_limit_s=parameters.time_limit,
            timeout_s=parameters.command_timeout,
            drop_reasoning=parameters.drop_reasoning,
        )
        return cls(parameters, settings, read_ladder(parameters.ladder), sampling)

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.parameters.directory

    @property
    def slots(self) -> int:
        """Number of attempts at a time on every worker."""
        return self.parameters.concurrency

    @property
    def notes(self) -> list[str]:
        """Notes where the model's `generation_config.json`, or a server, adds to the sampling parameters."""
        parameters = self.parameters
        return sampling_notes(
            self.settings.request,
            parameters.model_path,
            external=parameters.external,
            vllm_args=parameters.vllm_args,
        )

    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        """Load the problems, or the one of --instance. Raises `InputError`."""
        source = problem_source(self.parameters, folder)
        return load_problems(source, folder, problem_fault=problem_fault, quarantine_path=quarantine)

    def identity(self, loaded: LoadedProblems) -> Identity:
        """Return the identity of the run."""
        parameters = self.parameters
        generation: dict[str, Any] = {
            "recipe_version": self.recipe_version,
            "model": model_identity(parameters.model_path),
            "problems": loaded.sha256,
            "agent": self.settings.model_dump(mode="json", exclude={"model_name"}),
            "sampling": self.sampling.model_dump(),
            "sandbox": {
                "place": parameters.sandbox_kind,  # the key that the identities of earlier runs have
                "memory_mb": parameters.memory_mb,
                "processes": parameters.processes,
            },
            "grading": {
                "where": "service" if parameters.grades_elsewhere else "here",
                "ladder": self.ladder.model_dump(mode="json"),
            },
        }
        return Identity(generation=generation, verification={})

    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        """Return the number of attempts of the run."""
        return loaded.count * self.parameters.num_rollout

    def trials(self, services: Services) -> dict[str, TrialRequest]:
        """Return the trial request for running servers."""
        return model_trials(self.parameters, services, self._model, chat_fields(self.settings))

    @contextmanager
    def open_generator(self, context: GeneratorContext) -> Iterator[AgentRolloutGenerator]:
        """Serve the model, open sandboxes and grading, and yield the generator; see `GenerationJob`."""
        with context.serve(self.parameters, self._model, self.changes_for()) as servers, ExitStack() as closing:
            host, grader = self._open_sandboxes(context.services, closing)
            yield AgentRolloutGenerator(
                ChatClient(EndpointPool(servers.endpoints), servers.client),
                host,
                grader,
                settings=self.settings,
                model=servers.model,
                sampling=self.sampling,
                limits=self._limits,
                workers=self.parameters.concurrency,
                closing=closing,
            )

    def for_worker(self) -> Self:
        """Return the job with absolute paths; the contents of the agent's configuration and of the ladder are in it."""
        parameters = self.parameters
        paths = {"output": Path(parameters.output), "log_dir": Path(parameters.log_dir)}
        paths["images"] = parameters.image_folder
        if Path(parameters.model_path).is_dir() and not parameters.external:
            paths["model_path"] = Path(parameters.model_path)
        absolute = {name: str(path.absolute()) for name, path in paths.items()}
        return replace(self, parameters=parameters.model_copy(update=absolute))

    def report(self, run: Run, progress: Progress) -> AgentOutcome:
        """Write the document of all attempts, statistics and a plot."""
        return write_outcome(run, self.parameters, progress)

    @property
    def _model(self) -> ServedModel:
        log = Path(self.parameters.log_dir) / f"{self.name}_vllm.log"
        return ServedModel(self.parameters.model_path, self.name, log)

    @property
    def _limits(self) -> Limits:
        """Limits of every sandbox."""
        return Limits(memory_mb=self.parameters.memory_mb, processes=self.parameters.processes)

    def _open_sandboxes(self, services: Services, closing: ExitStack) -> tuple[SandboxHost, Grader]:
        """Open the host of the sandboxes, and the grader; `closing` closes both.

        Raises `InputError` where one of them cannot be used.
        """
        parameters, sandboxes, evaluations = self.parameters, services.sandbox, services.evaluation
        if parameters.sandbox_server:
            sandboxes = _service(parameters.sandbox_server, SANDBOX_TOKEN)
        if parameters.eval_server:
            evaluations = _service(parameters.eval_server, EVALUATION_TOKEN)
        host = self.sandbox_host(sandboxes)
        closing.callback(host.close)
        if evaluations is not None:
            remote = RemoteGrader(evaluations.address, token=evaluations.token)
            closing.callback(remote.close)
            return host, remote
        grading = host
        if sandboxes is not None:  # the service reserves sandboxes for grading, so that agents cannot occupy all
            grading = RemoteHost(sandboxes.address, token=sandboxes.token, for_grading=True)
            closing.callback(grading.close)
        local = LocalGrader(grading, ladder=self.ladder, limits=self._limits)
        closing.callback(local.close)
        return host, local

    def sandbox_host(self, service: ServiceConfig | None) -> SandboxHost:
        """Open the host of the sandboxes; `service` is for a remote kind. Raises `InputError` if it cannot be used."""
        return open_host(
            self.parameters.sandbox_kind,
            HostSettings(images=self.parameters.image_folder, service=service, start_config=self.settings.start_config),
        )


def jobs(parameters: AgentRollouts) -> list[AgentRolloutsJob]:
    """Return the call's job. Raises `InputError` as `AgentRolloutsJob.of` does."""
    return [AgentRolloutsJob.of(parameters)]


def _service(address: str, variable: str) -> ServiceConfig:
    return ServiceConfig(address=service_url(address), token=token_from_environment(variable))
