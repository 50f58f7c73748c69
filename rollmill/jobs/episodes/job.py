"""The generation job of episodes: the environment, its tools, and the policies of its agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from rollmill.environments.environment import Environment
from rollmill.environments.paths import absolute_paths
from rollmill.environments.registry import find_environment
from rollmill.errors import InputError
from rollmill.generation.concurrency import AUTO, Concurrency
from rollmill.generation.identity import Identity
from rollmill.generation.job import GenerationJob
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.services import GeneratorContext, Services
from rollmill.inference.backend import Served
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.generation_config import recommended_sampling, sampling_notes
from rollmill.inference.trial import TrialRequest
from rollmill.jobs.episodes.episode import EpisodePolicies
from rollmill.jobs.episodes.generator import EpisodeGenerator, EpisodeSetup
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.outcome import CollectionOutcome, write_collection
from rollmill.jobs.episodes.override_values import PolicySpec, as_pairs, suggest_name
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.policies import DemonstrationPolicy, ModelPolicy, Policy
from rollmill.jobs.episodes.policy_assignment import (
    assign_policies,
    policies_identity,
    policies_of,
    policy_trials,
    served_models,
    serving_cast,
)
from rollmill.jobs.episodes.tools import open_tools
from rollmill.problems import LoadedProblems, ProblemSource, load_problems

_MOST_THREADS = 64


@dataclass(frozen=True)
class EpisodesJob(GenerationJob[CollectionOutcome]):
    """Episodes of one or several agents in an environment, whose own version is part of the identity, too."""

    kind: ClassVar[str] = "collect_episodes"
    recipe_version: ClassVar[int] = 1

    parameters: CollectEpisodes
    policies: tuple[PolicySpec, ...]
    """The policies of the run's agents."""
    agent_policies: tuple[tuple[str, str], ...]
    """(agent, name of its policy)."""

    @classmethod
    def of(cls, parameters: CollectEpisodes) -> Self:
        """Resolve the parameters.

        Raises `InputError` for an unknown environment, setting, policy or agent, and for a policy whose recommended
        sampling cannot be read.
        """
        environment = find_environment(parameters.env_name)
        settings = environment_settings(parameters, environment)
        policies = [_with_recommended_sampling(spec, parameters) for spec in policies_of(parameters)]
        agent_policies = assign_policies(policies, environment.agent_names(settings), parameters)
        return cls(parameters, tuple(policies), tuple(agent_policies.items()))

    @property
    def environment(self) -> type[Environment]:
        """The environment's class, by name: a user's own class is imported in the process that uses it."""
        return find_environment(self.parameters.env_name)

    @property
    def settings(self) -> Any:
        """The environment's settings."""
        return environment_settings(self.parameters, self.environment)

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.parameters.directory

    @property
    def slots(self) -> Concurrency:
        """Number of episodes in flight on every worker."""
        return self.parameters.concurrency

    @property
    def server_models(self) -> list[str]:
        """The model of each server to start: the base models of the policies."""
        return [model.path for model in served_models(self.policies, self.parameters)]

    @property
    def notes(self) -> list[str]:
        """Notes where the models' `generation_config.json` recommend other sampling than the parameters."""
        return [
            f"policy {spec.name}: {note}"
            for spec in self.policies
            if not spec.demonstration
            for note in sampling_notes(
                spec.sampling.model_dump(),
                spec.model,
                external=bool(spec.base_urls) or self.parameters.external,
                vllm_args=self.parameters.vllm_args,
            )
        ]

    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        """Load the user's data set, or the environment's own problems. Raises `InputError`."""
        return load_problems(
            self._source(folder),
            folder,
            problem_fault=partial(self.environment.problem_fault, self.settings),
            quarantine_path=quarantine,
        )

    def identity(self, loaded: LoadedProblems) -> Identity:
        """Return the identity of the run; the number of episodes is not part of it."""
        parameters, environment = self.parameters, self.environment
        identity_of = getattr(environment, "identity", None)
        environment_identity = identity_of(self.settings) if identity_of and not self._uses_search_service else {}
        generation: dict[str, Any] = {
            "recipe_version": self.recipe_version,
            "problems": loaded.sha256,
            "environment": {
                "name": environment.name,
                "version": environment.version,
                "settings": self.settings.model_dump(mode="json"),
                **({"search": "service"} if self._uses_search_service else environment_identity),
            },
            "max_turns": parameters.max_turns,
            "policies": policies_identity(self.policies),
            "agents": dict(self.agent_policies),
            "sandbox": self._sandbox if "python" in environment.needs else None,
            "sampling": {
                "max_tokens": max((spec.sampling.max_tokens for spec in self.policies), default=0),
                "seed": parameters.seed,
            },
        }
        if parameters.drop_reasoning:
            generation["drop_reasoning"] = True
        return Identity(generation=generation, verification={})

    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        """Return the number of episodes of the run."""
        return self.parameters.total_rollouts

    def trials(self, services: Services) -> dict[str, TrialRequest]:
        """Return the trial request of each policy on running servers, by its name."""
        return policy_trials(self.parameters, self.policies, services.endpoint)

    @contextmanager
    def open_generator(self, context: GeneratorContext) -> Iterator[EpisodeGenerator]:
        """Serve the policies and yield the generator; see `GenerationJob`."""
        serving = serving_cast(
            self.parameters,
            self.policies,
            server=context.services.server,
            endpoint=context.services.endpoint,
            is_given_up=context.is_given_up,
            log_of=context.log_path,
            changes=dict(self.request_changes),
        )
        with serving as servers:
            yield self.player(servers, context.services)

    def player(self, served: Mapping[str, Served], services: Services) -> EpisodeGenerator:
        """Return the generator of the run's episodes; `served` are the models by policy.

        Raises `InputError` where the environment's tools cannot be used.
        """
        clients = {name: ChatClient(EndpointPool(model.endpoints), model.client) for name, model in served.items()}
        policies = {spec.name: _policy(spec, served, clients) for spec in self.policies}
        parameters = self.parameters
        tools = partial(
            open_tools,
            parameters,
            self.environment.needs,
            self.settings,
            sandboxes=services.sandbox,
            search=services.search,
        )
        return EpisodeGenerator(
            EpisodeSetup(self.environment, self.settings, parameters.seed, {"max_tokens": parameters.max_tokens}),
            EpisodePolicies(
                {agent: policies[name] for agent, name in self.agent_policies},
                parameters.max_turns,
                ImageFolder(self.directory),
                parameters.drop_reasoning,
            ),
            clients=list(clients.values()),
            open_tools=tools,
            threads=_MOST_THREADS if parameters.concurrency == AUTO else min(parameters.concurrency, _MOST_THREADS),
        )

    def for_worker(self) -> Self:
        """Return the job with absolute paths."""
        parameters, paths = self.parameters, absolute_paths(self.settings)
        worker_parameters = parameters.model_copy(
            update={
                "env": as_pairs(parameters.env_settings | paths),
                "output_dir": str(Path(parameters.output_dir).absolute()),
                "log_dir": str(Path(parameters.log_dir).absolute()),
            }
        )
        return replace(
            self,
            parameters=worker_parameters,
            policies=tuple(_with_absolute_paths(spec, external=parameters.external) for spec in self.policies),
        )

    def report(self, run: Run, progress: Progress) -> CollectionOutcome:
        """Write the training rows and their statistics."""
        return write_collection(run, self.parameters, progress)

    def _source(self, folder: Path) -> ProblemSource:
        """Return the source of the user's data set, or of the environment's own problems."""
        parameters = self.parameters
        if parameters.source is not None:
            if parameters.answer_field is None and getattr(self.environment, "without_answers", False):
                return parameters.source.model_copy(update={"answer_field": ""})
            return parameters.source
        if self._uses_search_service:
            raise InputError(
                f"--dataset: required with a search service: the built-in questions of {self.environment.name} are on "
                "its own corpus"
            )
        limits = {"max_problems": parameters.max_problems, "max_bad_share": parameters.max_bad_share}
        return self.environment.source(self.settings, folder).model_copy(update=limits)

    @property
    def _uses_search_service(self) -> bool:
        service = self.parameters.search_server or self.parameters.search_block
        return "search" in self.environment.needs and bool(service)

    @property
    def _sandbox(self) -> dict[str, Any]:
        return {
            "place": self.parameters.sandbox_kind,  # the key that the identities of earlier runs have
            "image": self.parameters.sandbox_image,
            "timeout_s": self.parameters.code_timeout,
            "memory_mb": self.parameters.memory_mb,
            "processes": self.parameters.processes,
        }


def jobs(parameters: CollectEpisodes) -> list[EpisodesJob]:
    """Return the call's job. Raises `InputError` as `EpisodesJob.of` does."""
    return [EpisodesJob.of(parameters)]


def environment_settings(parameters: CollectEpisodes, environment: type[Environment]) -> Any:
    """Return the environment's settings. Raises `InputError` for an unknown setting, and for a wrong value."""
    try:
        return environment.Settings.model_validate(parameters.env_settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = environment.Settings.model_fields
            raise InputError(
                f"--env {key}: {environment.name} has no such setting{suggest_name(key, known)}"
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"--env {key + '=' if key else ''}{first['input']}: {message}") from error


def _with_recommended_sampling(spec: PolicySpec, parameters: CollectEpisodes) -> PolicySpec:
    """Return the policy with its model's recommended sampling, unless `--sampling flags`."""
    if spec.demonstration or parameters.sampling == "flags":
        return spec
    recommended = recommended_sampling(spec.model)
    return spec._replace(sampling=spec.sampling.with_recommended(recommended, parameters.set_names | spec.overrides))


def _with_absolute_paths(spec: PolicySpec, *, external: bool) -> PolicySpec:
    """Return the policy with absolute paths, for a process in another folder; a name on a running server stays."""
    folder = Path(spec.model)
    is_local_folder = folder.is_dir() and not (spec.demonstration or spec.base_urls or external)
    return spec._replace(
        model=str(folder.absolute()) if is_local_folder else spec.model,
        adapter=spec.adapter and str(Path(spec.adapter).absolute()),
    )


def _policy(spec: PolicySpec, served: Mapping[str, Served], clients: Mapping[str, ChatClient]) -> Policy:
    if spec.demonstration:
        return DemonstrationPolicy(spec.name, spec.model)
    return ModelPolicy(spec.name, clients[spec.name], model=served[spec.name].model, sampling=spec.sampling)
