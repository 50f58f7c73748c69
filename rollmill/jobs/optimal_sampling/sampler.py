"""Samples a shard with a pair of models that stays loaded in this process. Imports torch when it samples."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rollmill.errors import InputError
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import rollout_seed
from rollmill.generation.shard import ShardRollouts
from rollmill.generation.tally import RolloutOutcome
from rollmill.generation.worker_session import worker
from rollmill.inference.gpu_reservation import reserve_gpus
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from rollmill.inference.tokenizer_hash import tokenizer_hash
from rollmill.jobs.optimal_sampling.device_env import gpus_of_process
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.shards import RowRange, ShardRow
from rollmill.jobs.training.advice import is_out_of_memory
from rollmill.records import SCHEMA_VERSION, Message
from rollmill.terminal.stall_watch import INTERPRETER_S, TimedStep, stacks_file, watch

if TYPE_CHECKING:
    from rollmill.jobs.optimal_sampling.model import OptimalSamplingModel, PairDecoder, Prompt
    from rollmill.jobs.optimal_sampling.model_spec import ModelSpec

LISTED = ("alpha", "kl_theta", "kl_t", "ess_ratio")
"""Diagnostics that are stored for every token."""
STALL_S = 1800.0
"""Seconds without a decoding step (with vLLM: without an answer) after which the process counts as hung."""
LOADING_S = 7200.0
"""Seconds that loading two models may take, downloads included."""
_DIGITS = 5
"""Significant digits that are stored: further ones depend on the batch."""
_lock = threading.Lock()
_loaded: _LoadedPair | None = None


class SamplerSettings(BaseModel):
    """Settings with which a worker samples any rows."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_theta: str
    model_t: str | None
    adapter_theta: str | None
    adapter_t: str | None
    backend: str
    device: str | None
    device_t: str | None = None
    dtype: str | None
    vllm_args: str
    alpha: dict[str, Any]
    decoding: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, parameters: OptimalSampling) -> SamplerSettings:
        """Return the settings of a call, with absolute paths."""
        paths = ("model_theta", "model_t", "adapter_theta", "adapter_t")
        alpha = ("alpha_method", "fixed_alpha", "alpha_tol", "batch_size", "support_top_k", "support_top_p")
        return cls(
            **{name: _absolute(getattr(parameters, name)) for name in paths},
            backend=parameters.backend,
            device=None if parameters.device == "auto" else parameters.device,
            device_t=None if parameters.device_t == "auto" else parameters.device_t,
            dtype=None if parameters.dtype == "auto" else parameters.dtype,
            vllm_args=parameters.vllm_args,
            alpha={name: getattr(parameters, name) for name in alpha},
            decoding={
                "max_new_tokens": parameters.max_tokens,
                **{name: getattr(parameters, name) for name in ("temperature", "top_p", "top_k")},
            },
            seed=parameters.seed,
        )


def _absolute(path: str | None) -> Any:
    """Return a directory's absolute path, for a worker with another current directory; a hub id as it is."""
    return str(Path(path).absolute()) if path and Path(path).is_dir() else path


class _LoadedPair(NamedTuple):
    settings: SamplerSettings
    model: OptimalSamplingModel
    decoder: PairDecoder
    tokenizer: str | None
    """Hash of the policy's tokenizer."""
    reserved: ExitStack
    """Holds the reservation of the GPUs."""


def sample_shard(
    settings: SamplerSettings, shard: RowRange, run: Path, *, is_given_up: Callable[[], bool] | None = None
) -> ShardRollouts:
    """Sample the pending rows of a shard. The models stay loaded for the next shard with the same settings.

    A prompt that the models cannot take makes a row with an error. A process whose decoding hangs ends, and writes the
    stacks of its threads to the logs.

    Args:
        settings: The models and the sampling parameters.
        shard: The rows.
        run: The run's directory, for its logs.
        is_given_up: Returns True when nobody waits for the samples any more: those completed so far are returned.

    Raises `InputError` and `RunStoppedError` as loading and decoding do.
    """
    # A hung kernel cannot be interrupted: the process ends, and the shard is given to another worker.
    watched = watch.exit_on_stall(STALL_S, stacks_file(run), interpreter_s=INTERPRETER_S)
    with _lock, watched:  # one shard at a time: the models' memory is for one
        load_s = _load_models(settings)
        assert _loaded is not None
        samples: list[CompletedRollout] = []
        try:
            samples.extend(_sample_rows(_loaded, shard, is_given_up))
        except BaseException as error:
            _unload_models()  # the engine may have ended: the next shard must not use it
            if is_out_of_memory(error):
                raise InputError(
                    f"memory does not suffice for one sample of up to {settings.decoding['max_new_tokens']} new tokens"
                    ": lower --max_tokens, leave out long prompts, give smaller models, or free the device"
                ) from None
            raise
        return ShardRollouts(
            samples,
            worker(),
            load_s,
            given_up=len(samples) < len(shard),
            device=_loaded.model.pair.used,
            notes=_memory_notes(settings.alpha["batch_size"], _loaded.decoder.batch_size),
        )


def _completed(row: dict[str, Any], *tokens: SampledTokens) -> CompletedRollout:
    failure = row["error"]["message"] if row["error"] else None
    outcome = RolloutOutcome.of_row(row)
    return CompletedRollout(row["instance_id"], row["sample_id"], dump_line(row), outcome, failure, tokens)


def _memory_notes(batch_size: int, actual: int) -> tuple[str, ...]:
    """Return a note where memory has reduced the batch size, which changes the last bits of the samples' numbers."""
    if actual >= batch_size:
        return ()
    return (
        f"memory ran out: the run continues with {actual} samples at once; "
        f"--batch_size {actual} gives the same samples",
    )


def _load_models(settings: SamplerSettings) -> float | None:
    """Load the models, in place of others, unless they are loaded; return the seconds that it took, None for none."""
    global _loaded
    if _loaded is not None and _loaded.settings == settings:
        return None
    from rollmill.jobs.optimal_sampling.model import OptimalSamplingModel

    _unload_models()
    begin = time.monotonic()
    devices = [device or "auto" for device in (settings.device, settings.device_t or settings.device)]
    two_models = settings.model_t is not None and settings.backend == "transformers"
    with TimedStep(LOADING_S), ExitStack() as reserved:
        reserved.enter_context(reserve_gpus(gpus_of_process(devices, two_models=two_models)))
        model = OptimalSamplingModel(
            settings.model_theta,
            settings.model_t,
            settings.backend,
            adapter_theta=settings.adapter_theta,
            adapter_t=settings.adapter_t,
            device=settings.device,
            device_t=settings.device_t,
            dtype=settings.dtype,
            vllm_args=settings.vllm_args,
            **settings.alpha,
        )
        decoder = model.decoder(**settings.decoding)
        _loaded = _LoadedPair(settings, model, decoder, tokenizer_hash(settings.model_theta), reserved.pop_all())
    return time.monotonic() - begin


def _unload_models() -> None:
    global _loaded
    if _loaded is not None:
        _loaded.model.close()
        _loaded.reserved.close()
    _loaded = None


def _sample_rows(
    loaded: _LoadedPair, shard: RowRange, is_given_up: Callable[[], bool] | None
) -> Iterator[CompletedRollout]:
    """Yield samples as they are completed; end with the last pending row, or when `is_given_up()`."""
    rows = {row.instance_id: row for row in shard.rows}
    remaining = {row.instance_id for row in shard.rows if row.is_pending}
    requests: dict[str, SampleRequest] = {}
    for row in shard.rows:
        request = _request(loaded, row)
        if isinstance(request, str):
            if row.is_pending:
                remaining.discard(row.instance_id)
                yield _completed(_failed(loaded.settings, row, request))
        else:
            # Rows that are not pending are sampled, too: they fill the same places in the batch as in any other call.
            requests[row.instance_id] = request
    with closing(loaded.decoder.decode(requests.values())) as decoding:  # type: ignore[type-var]  # it is a generator
        while remaining and not (is_given_up and is_given_up()):
            decoded = next(decoding)
            key = str(decoded.key)
            if key in remaining:
                remaining.discard(key)
                yield _completed(
                    _sample(loaded, rows[key], requests[key], decoded), _tokens(loaded, requests[key], decoded)
                )


def _request(loaded: _LoadedPair, row: ShardRow) -> SampleRequest | str:
    """Return the request for a row, or the reason why it cannot be sampled."""
    from jinja2 import TemplateError

    theta, t = loaded.model.spec.theta, loaded.model.spec.t
    prompt, prompt_t = _prompt(theta, row.messages), _prompt(t, row.messages_t or row.messages)
    same = row.messages_t is None and isinstance(prompt, str) == isinstance(prompt_t, str)
    seed = rollout_seed(loaded.settings.seed, row.instance_id, 0)
    try:
        request = loaded.model.request(row.instance_id, prompt, None if same else prompt_t, seed)
    except TemplateError as error:
        return f"the chat template refuses the prompt: {error}"
    if refusal := loaded.decoder.refusal(request):
        return f"the prompt {refusal}"
    return request


def _prompt(side: ModelSpec, messages: list[Message]) -> Prompt:
    """Return the messages; for a model without a chat template their text, joined by blank lines."""
    if side.tokenizer.chat_template:
        return messages
    return "\n\n".join(message["content"] for message in messages)


def _failed(settings: SamplerSettings, row: ShardRow, message: str) -> dict[str, Any]:
    return _row(settings, row) | {"error": {"type": "prompt", "message": message}}


def _sample(loaded: _LoadedPair, row: ShardRow, request: SampleRequest, decoded: Decoded) -> dict[str, Any]:
    """Return the journal row of a sample.

    Args:
        loaded: The models.
        row: The row of the data set.
        request: The request, for the number of prompt tokens.
        decoded: The answer.
    """
    journal_row = _row(loaded.settings, row)
    diagnostics = {"diagnostics": mean_diagnostics(decoded.diagnostics), "tokens": token_lists(decoded.diagnostics)}
    return journal_row | {
        "completion": loaded.model.text(decoded.token_ids),
        "usage": {"prompt_tokens": len(request.prompt_ids_theta), "completion_tokens": len(decoded.token_ids)},
        "finish_reason": decoded.finish_reason,
        "metadata": journal_row["metadata"] | diagnostics,
    }


def _tokens(loaded: _LoadedPair, request: SampleRequest, decoded: Decoded) -> SampledTokens:
    """Return the answer's ids behind the policy's prompt, which is trained on, and their log-probabilities under q."""
    source = TokenSource(loaded.tokenizer, "processed_logprobs")
    logprobs = array("f", [float(f"{logprob:.{_DIGITS}g}") for logprob in decoded.logprobs])
    return SampledTokens(array("I", request.prompt_ids_theta), array("I", decoded.token_ids), logprobs, source)


def _row(settings: SamplerSettings, row: ShardRow) -> dict[str, Any]:
    """Return a journal row with the fields that samples and failures share."""
    return {
        "schema_version": SCHEMA_VERSION,
        "instance_id": row.instance_id,
        "sample_id": 0,
        "seed": rollout_seed(settings.seed, row.instance_id, 0),
        "messages": row.messages,
        "completion": None,
        "reward": None,
        "success": None,
        "verdict": None,
        "error": None,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
        "latency_s": None,
        "finish_reason": None,
        "model_calls": 0,
        "metadata": {
            "model": settings.model_theta,
            "attempt": 0,
            "max_tokens": settings.decoding["max_new_tokens"],
        },
    }


def mean_diagnostics(diagnostics: dict[str, list[float]]) -> dict[str, float | None]:
    """Return means over an answer's tokens, and two standard deviations; values that are not finite do not count."""
    summary: dict[str, float | None] = {}
    for name, values in diagnostics.items():
        finite = [value for value in values if math.isfinite(value)]
        mean = math.fsum(finite) / len(finite) if finite else None
        summary[f"{name}_mean"] = _rounded(mean)
        if name in ("alpha", "ess_ratio") and mean is not None:
            deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite))
            summary[f"{name}_std"] = _rounded(deviation)
    return summary


def token_lists(diagnostics: dict[str, list[float]]) -> dict[str, list[float | None]]:
    """Return the stored diagnostics of every token, to five significant digits; None for values that are not finite."""
    return {name: [_rounded(value) for value in _finite(diagnostics[name])] for name in LISTED if name in diagnostics}


def _finite(values: Sequence[float]) -> Iterator[float | None]:
    return (value if math.isfinite(value) else None for value in values)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
