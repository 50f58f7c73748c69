"""Drawing the samples of a shard, with a pair of models that stays in this process. Imports torch when it draws."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
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
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from rollmill.inference.tokenizer_hash import tokenizer_hash
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
"""What is kept of every token."""
STALL_S = 1800.0
"""Without a decoding step, or with vLLM an answer, for so long the process is stuck."""
LOADING_S = 7200.0
"""Loading two models, downloads included, may take so long."""
_DIGITS = 5
_lock = threading.Lock()
_loaded: _LoadedPair | None = None


class SamplerSettings(BaseModel):
    """What a worker needs to draw for any rows."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_theta: str
    model_t: str | None
    adapter_theta: str | None
    adapter_t: str | None
    backend: str
    device: str | None
    dtype: str | None
    vllm_args: str
    alpha: dict[str, Any]
    decoding: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, parameters: OptimalSampling) -> SamplerSettings:
        """Take from the parameters what a worker needs."""
        paths = ("model_theta", "model_t", "adapter_theta", "adapter_t")
        alpha = ("alpha_method", "fixed_alpha", "alpha_tol", "batch_size", "support_top_k", "support_top_p")
        return cls(
            **{name: _anywhere(getattr(parameters, name)) for name in paths},
            backend=parameters.backend,
            device=None if parameters.device == "auto" else parameters.device,
            dtype=None if parameters.dtype == "auto" else parameters.dtype,
            vllm_args=parameters.vllm_args,
            alpha={name: getattr(parameters, name) for name in alpha},
            decoding={
                "max_new_tokens": parameters.max_tokens,
                **{name: getattr(parameters, name) for name in ("temperature", "top_p", "top_k")},
            },
            seed=parameters.seed,
        )


def _anywhere(path: str | None) -> Any:
    """Return a directory's absolute path, for a worker that runs in another one; a hub id as it is."""
    return str(Path(path).absolute()) if path and Path(path).is_dir() else path


class _LoadedPair(NamedTuple):
    settings: SamplerSettings
    model: OptimalSamplingModel
    decoder: PairDecoder
    tokenizer: str | None
    """The hash of the policy's."""


def sample_shard(
    settings: SamplerSettings, shard: RowRange, run: Path, *, is_given_up: Callable[[], bool] | None = None
) -> ShardRollouts:
    """Draw what is wanted of a shard. The models stay loaded for the next one of the same settings.

    A prompt that the models cannot take makes a row with an error. A process in which decoding stands still ends, and
    leaves the stacks of its threads among the logs.

    Args:
        settings: The models, and how an answer is drawn.
        shard: The rows.
        run: The run's directory, whose logs are written to.
        is_given_up: Says when nobody waits for the samples any more: what is drawn until then is returned.

    Raises `InputError` and `RunStoppedError` as loading and decoding do.
    """
    watched = watch.exit_on_stall(STALL_S, stacks_file(run), interpreter_s=INTERPRETER_S)
    with _lock, watched:  # one shard at a time: the models' memory is for one
        load_s = _keep(settings)
        assert _loaded is not None
        samples: list[CompletedRollout] = []
        try:
            samples.extend(_draw(_loaded, shard, is_given_up))
        except BaseException as error:
            _drop()  # the next shard is not to find an engine that has ended
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


def _memory_notes(asked: int, actual: int) -> tuple[str, ...]:
    """Say where fewer samples are drawn at once than asked for, which changes the last bits of their numbers."""
    if actual >= asked:
        return ()
    return (f"memory ran out: it goes on with {actual} samples at once; --batch_size {actual} draws the same so",)


def _keep(settings: SamplerSettings) -> float | None:
    """Load the models unless they are loaded, in place of others; return how long that took."""
    global _loaded
    if _loaded is not None and _loaded.settings == settings:
        return None
    from rollmill.jobs.optimal_sampling.model import OptimalSamplingModel

    _drop()
    begun = time.monotonic()
    with TimedStep(LOADING_S):
        model = OptimalSamplingModel(
            settings.model_theta,
            settings.model_t,
            settings.backend,
            adapter_theta=settings.adapter_theta,
            adapter_t=settings.adapter_t,
            device=settings.device,
            dtype=settings.dtype,
            vllm_args=settings.vllm_args,
            **settings.alpha,
        )
    _loaded = _LoadedPair(settings, model, model.decoder(**settings.decoding), tokenizer_hash(settings.model_theta))
    return time.monotonic() - begun


def _drop() -> None:
    global _loaded
    if _loaded is not None:
        _loaded.model.close()
    _loaded = None


def _draw(loaded: _LoadedPair, shard: RowRange, is_given_up: Callable[[], bool] | None) -> Iterator[CompletedRollout]:
    """Yield samples as they are done; end with the last that is wanted, or when nobody waits for them any more."""
    rows = {row.instance_id: row for row in shard.rows}
    remaining = {row.instance_id for row in shard.rows if row.wanted}
    requests: dict[str, SampleRequest] = {}
    for row in shard.rows:
        request = _request(loaded, row)
        if isinstance(request, str):
            if row.wanted:
                remaining.discard(row.instance_id)
                yield _completed(_failed(loaded.settings, row, request))
        else:
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
    """Return the request, or why there is none."""
    from jinja2 import TemplateError

    theta, t = loaded.model.spec.theta, loaded.model.spec.t
    prompt, prompt_t = _prompt(theta, row.messages), _prompt(t, row.messages_t or row.messages)
    same = row.messages_t is None and isinstance(prompt, str) == isinstance(prompt_t, str)
    seed = rollout_seed(loaded.settings.seed, row.instance_id, 0)
    try:
        request = loaded.model.request(row.instance_id, prompt, None if same else prompt_t, seed)
    except TemplateError as error:
        return f"the chat template refuses the prompt: {error}"
    if why := loaded.decoder.refusal(request):
        return f"the prompt {why}"
    return request


def _prompt(side: ModelSpec, messages: list[Message]) -> Prompt:
    """Return the messages, or for a model without a chat template their text."""
    if side.tokenizer.chat_template:
        return messages
    return "\n\n".join(message["content"] for message in messages)


def _failed(settings: SamplerSettings, row: ShardRow, why: str) -> dict[str, Any]:
    return _row(settings, row) | {"error": {"type": "prompt", "message": why}}


def _sample(loaded: _LoadedPair, row: ShardRow, request: SampleRequest, decoded: Decoded) -> dict[str, Any]:
    journal_row = _row(loaded.settings, row)
    diagnostics = {"diagnostics": means(decoded.diagnostics), "tokens": listed(decoded.diagnostics)}
    return journal_row | {
        "completion": loaded.model.text(decoded.token_ids),
        "usage": {"prompt_tokens": len(request.prompt_ids_theta), "completion_tokens": len(decoded.token_ids)},
        "finish_reason": decoded.finish_reason,
        "metadata": journal_row["metadata"] | diagnostics,
    }


def _tokens(loaded: _LoadedPair, request: SampleRequest, decoded: Decoded) -> SampledTokens:
    """Return the answer's ids behind the policy's prompt, as it is trained, and their log-probabilities under q."""
    source = TokenSource(loaded.tokenizer, "processed_logprobs")
    # To as many digits as the diagnostics: more depend on the batch.
    logprobs = array("f", [float(f"{logprob:.{_DIGITS}g}") for logprob in decoded.logprobs])
    return SampledTokens(array("I", request.prompt_ids_theta), array("I", decoded.token_ids), logprobs, source)


def _row(settings: SamplerSettings, row: ShardRow) -> dict[str, Any]:
    """Return a journal row that is neither a sample nor a failure yet."""
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


def means(diagnostics: dict[str, list[float]]) -> dict[str, float | None]:
    """Return means over an answer's tokens, and two standard deviations; a number that is not finite does not count."""
    summary: dict[str, float | None] = {}
    for name, values in diagnostics.items():
        finite = [value for value in values if math.isfinite(value)]
        mean = math.fsum(finite) / len(finite) if finite else None
        summary[f"{name}_mean"] = _rounded(mean)
        if name in ("alpha", "ess_ratio") and mean is not None:
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite))
            summary[f"{name}_std"] = _rounded(spread)
    return summary


def listed(diagnostics: dict[str, list[float]]) -> dict[str, list[float | None]]:
    """Return the numbers of every token, to five significant digits; null for one that is not finite."""
    return {name: [_rounded(value) for value in _finite(diagnostics[name])] for name in LISTED if name in diagnostics}


def _finite(values: Sequence[float]) -> Iterator[float | None]:
    return (value if math.isfinite(value) else None for value in values)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
