"""The generation job of q* sampling: its identity, its rows, and the sampling of a shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from rollmill.errors import InputError
from rollmill.generation.identity import Identity
from rollmill.generation.job import GenerationJob
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.services import Services
from rollmill.generation.shard import ShardRollouts
from rollmill.generation.tally import Tally
from rollmill.generation.worker_session import IsGivenUp
from rollmill.inference.adapter import ADAPTER_CONFIG, Runner, read_adapter
from rollmill.inference.machine import has_accelerator
from rollmill.inference.model_identity import model_identity
from rollmill.inference.placement import Placement
from rollmill.jobs.optimal_sampling.datasets import load_data_set, response_column
from rollmill.jobs.optimal_sampling.device_env import check_torch, place_processes
from rollmill.jobs.optimal_sampling.hint import Hint
from rollmill.jobs.optimal_sampling.outcome import SamplingOutcome, write_samples
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.sampler import SamplerSettings, sample_shard
from rollmill.jobs.optimal_sampling.shards import Extent, RowRange, RowScheduler
from rollmill.jobs.training.base_check import check_adapter
from rollmill.problems import LoadedProblems

_BATCHED = (
    "vLLM rounds a row's numbers by the batch that it is in: in 16 bits an answer may differ from the one that is "
    "drawn alone. --dtype float32 or --backend transformers draws the same one in any batch"
)


@dataclass(frozen=True)
class OptimalSamplingJob(GenerationJob[SamplingOutcome]):
    """Samples from q*. Its generator is batched: a worker samples consecutive rows, with both models loaded."""

    kind: ClassVar[str] = "optimal_sampling"
    recipe_version: ClassVar[int] = 1
    directory_flags: ClassVar[str] = "--output"
    shards_ahead: ClassVar[int] = 2  # one that is sampled, and one that waits
    shards_at_once: ClassVar[int] = 1  # memory suffices for one batch

    parameters: OptimalSampling
    models: dict[str, Any]
    """Hashes of both models' content, and of their adapters'; see `models_identity`."""
    hint: Hint | None

    @classmethod
    def of(cls, parameters: OptimalSampling) -> Self:
        """Resolve the parameters. Raises `InputError` for models, adapters and a hint that cannot be used."""
        models = models_identity(parameters)
        return cls(parameters, models, Hint.from_flag(parameters.hint) if parameters.hint is not None else None)

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.parameters.directory

    @property
    def notes(self) -> list[str]:
        """A note where vLLM's samples depend on their batch: in 16 bits."""
        parameters = self.parameters
        in_32_bits = parameters.dtype == "float32" or (parameters.dtype == "auto" and not has_accelerator())
        return [_BATCHED] if parameters.backend == "vllm" and not in_32_bits else []

    @property
    def slots(self) -> int:
        """Number of samples in flight on every worker."""
        return self.parameters.batch_size

    @property
    def on_workers(self) -> bool:
        """True: models loaded in this process would stay in its memory after the run."""
        return True

    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        """Load the data set. Raises `InputError` as `load_data_set` does."""
        return load_data_set(self.parameters, folder, quarantine)

    def identity(self, loaded: LoadedProblems) -> Identity:
        """Return the identity of the run: everything that determines a sample's bytes.

        The rows that this call samples are not part of it: calls for other rows continue the run.
        """
        parameters = self.parameters
        column = response_column(parameters, loaded.path)
        sampling = ("temperature", "top_p", "top_k", "support_top_k", "support_top_p", "seed")
        generation: dict[str, Any] = {
            "recipe_version": self.recipe_version,
            **self.models,
            "problems": loaded.sha256,
            "columns": loaded.fields,
            "hint": self._hint_identity(column),
            "alpha_method": parameters.alpha_method,
            "fixed_alpha": parameters.fixed_alpha if parameters.alpha_method == "fixed" else None,
            "alpha_tol": parameters.alpha_tol,
            "sampling": {
                "max_new_tokens": parameters.max_tokens,
                **{name: getattr(parameters, name) for name in sampling},
                "max_tokens": 0,  # never sampled again under a higher limit: another `max_new_tokens` is another run
            },
            "backend": parameters.backend,
            "dtype": parameters.dtype,
            "batch_size": parameters.batch_size,
            "shard_size": parameters.shard_size,
        }
        return Identity(generation=generation, verification={})

    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        """Return the number of samples of the run when all rows are sampled."""
        return loaded.count

    def progress(self, run: Run) -> Progress:
        """Return the progress of the call, over the rows that it samples."""
        extent = Extent(self.parameters)
        pending = [bool(run.pending(problem)) for problem in run.problems() if problem in extent]
        return Progress(total=len(pending), left=pending.count(True), before=Tally(), noun="samples")

    def scheduler(self, run: Run, progress: Progress) -> RowScheduler:
        """Return the scheduler that cuts the rows into shards."""
        return RowScheduler(run, progress, self.parameters, self.hint if self.parameters.hint else None)

    def placement(self, services: Services, environment: Mapping[str, str] | None = None) -> Placement:
        """Return the GPU of each process. Raises `InputError` as `place_processes` does."""
        return place_processes(self.parameters, environment)

    def worker_environments(self, services: Services) -> Sequence[Mapping[str, str]]:
        """Return the variables to set for each process. Raises `InputError` as `placement` and `check_torch` do."""
        environments = super().worker_environments(services)
        check_torch(self.parameters)
        return environments

    def make_shard(
        self,
        shard: RowRange,
        find_services: Callable[[], Services],
        *,
        caller: str,
        is_given_up: IsGivenUp | None = None,
    ) -> ShardRollouts:
        """Sample the rows of a shard; the models stay loaded for the next one with the same settings.

        Args:
            shard: The rows.
            find_services: Not used: the models are loaded in this process.
            caller: Not used: no shard is refused.
            is_given_up: Returns True when nobody waits for the shard any more.
        """
        return sample_shard(SamplerSettings.of(self.parameters), shard, self.directory, is_given_up=is_given_up)

    def for_worker(self) -> Self:
        """Return the job with absolute paths."""
        absolute = {"output": str(Path(self.parameters.output).absolute())}
        for name in ("model_theta", "model_t", "adapter_theta", "adapter_t"):
            path = getattr(self.parameters, name)
            if path and Path(path).is_dir():
                absolute[name] = str(Path(path).absolute())
        return replace(self, parameters=self.parameters.model_copy(update=absolute))

    def report(self, run: Run, progress: Progress) -> SamplingOutcome:
        """Write all samples of the journal, with statistics and a plot."""
        return write_samples(run, self.parameters, progress)

    def _hint_identity(self, column: str | None) -> dict[str, str | None] | None:
        """Return the hint's part of the identity; the response column counts only where the hint names it."""
        if self.hint is None:
            return None
        return {"template": self.hint.template, "response": column if "response" in self.hint.columns else None}


def jobs(parameters: OptimalSampling) -> list[OptimalSamplingJob]:
    """Return the call's job. Raises `InputError` as `OptimalSamplingJob.of` does."""
    return [OptimalSamplingJob.of(parameters)]


def models_identity(parameters: OptimalSampling) -> dict[str, Any]:
    """Return hashes of both models' content, and of their adapters'.

    Raises `InputError` for a directory that does not exist, and for an adapter of another base.
    """
    target = parameters.model_t or parameters.model_theta
    runner: Runner = "vllm" if parameters.backend == "vllm" else "peft"
    return {
        **_model_identity(parameters.model_theta, parameters.adapter_theta, "theta", runner),
        **_model_identity(target, parameters.adapter_t, "t", runner),
    }


def _model_identity(model: str, adapter: str | None, side: str, runner: Runner) -> dict[str, str | None]:
    """Return the hashes of one model and its adapter.

    Args:
        model: Directory or hub id; an adapter's directory stands for its base with the adapter.
        adapter: Directory of a LoRA adapter; None for none.
        side: `theta` or `t`.
        runner: The library that loads the adapter.
    """
    flag = f"--model_{side}"
    if model.startswith(("/", "./", "../")) and not Path(model).is_dir():
        raise InputError(f"{flag} {model}: there is no such directory")
    if (Path(model) / ADAPTER_CONFIG).is_file():
        if adapter is not None:
            raise InputError(f"{flag} {model} is an adapter itself: give its base, or leave out --adapter_{side}")
        model, adapter = read_adapter(model, runner=runner, model_flag=flag).base, model
    content = None if adapter is None else check_adapter(adapter, model, runner=runner, model_flag=flag).identity
    return {f"model_{side}": model_identity(model), f"adapter_{side}": content}
