"""Drawing the samples of a shard, with a pair of models that stays in this process. Imports torch when it draws."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rollmill.errors import InputError, RunStoppedError
from rollmill.generation.identity import rollout_seed
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
_kept: _Kept | None = None


class SamplerSettings(BaseModel):
    """What a worker has to know beside the rows."""

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
        """The parameters' part in it."""
        paths = ("model_theta", "model_t", "adapter_theta", "adapter_t")
        alpha = ("alpha_method", "fixed_alpha", "alpha_tol", "batch_size", "support_top_k", "support_top_p")
        return cls(
            **{name: _anywhere(getattr(parameters, name)) for name in paths},
            backend=parameters.backend,
            device=None if parameters.device == "auto" else parameters.device,
            dtype=None if parameters.dtype == "auto" else parameters.dtype,
            vllm_args=parameters.vllm_args,
            alpha={name: getattr(parameters, name) for name in alpha},
            decoding={name: getattr(parameters, name) for name in ("max_new_tokens", "temperature", "top_p", "top_k")},
            seed=parameters.seed,
        )


def _anywhere(path: str | None) -> Any:
    """A directory's absolute path, for a worker that runs in another one; a hub id as it is."""
    return str(Path(path).absolute()) if path and Path(path).is_dir() else path


class ShardSamples(NamedTuple):
    """What a shard gave."""

    rows: list[dict[str, Any]]
    """Journal rows of what was wanted, in the order of completion."""
    process: int
    load_s: float | None
    """Seconds that loading the models took; None where they were there."""
    batch_size: int
    """Smaller than asked for where memory ran out."""
    used: dict[str, Any] | None = None
    """What the models run on; see `describe_use`."""


class _Kept(NamedTuple):
    settings: SamplerSettings
    model: OptimalSamplingModel
    decoder: PairDecoder


def sample_shard(
    settings: SamplerSettings, shard: RowRange, run: Path, *, is_given_up: Callable[[], bool] | None = None
) -> ShardSamples:
    """Draws what is wanted of a shard. The models stay loaded for the next one of the same settings.

    A prompt that the models cannot take makes a row with an error. Raises `InputError` and `RunStoppedError` as
    loading and decoding do, and the latter when `is_given_up` says so. A process in which decoding stands still ends,
    and leaves the stacks of its threads among the logs of the folder `run`.
    """
    watched = watch.exit_on_stall(STALL_S, stacks_file(run), interpreter_s=INTERPRETER_S)
    with _lock, watched:  # one shard at a time: the models' memory is for one
        load_s = _keep(settings)
        assert _kept is not None
        try:
            rows = list(_draw(_kept, shard, is_given_up))
        except BaseException as error:
            _drop()  # the next shard is not to find an engine that has ended
            if is_out_of_memory(error):
                raise InputError(
                    f"memory does not suffice for one sample of up to {settings.decoding['max_new_tokens']} new tokens"
                    ": lower --max_new_tokens, leave out long prompts, give smaller models, or free the device"
                ) from None
            raise
        return ShardSamples(rows, os.getpid(), load_s, _kept.decoder.batch_size, _kept.model.pair.used)


def _keep(settings: SamplerSettings) -> float | None:
    """Loads the models unless they are there, in place of others that are; how long that took."""
    global _kept
    if _kept is not None and _kept.settings == settings:
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
    _kept = _Kept(settings, model, model.decoder(**settings.decoding))
    return time.monotonic() - begun


def _drop() -> None:
    global _kept
    if _kept is not None:
        _kept.model.close()
    _kept = None


def _draw(kept: _Kept, shard: RowRange, is_given_up: Callable[[], bool] | None) -> Iterator[dict[str, Any]]:
    """Rows as they are done; ends with the last that is wanted."""
    rows = {row.instance_id: row for row in shard.rows}
    left = {row.instance_id for row in shard.rows if row.wanted}
    requests: dict[str, SampleRequest] = {}
    for row in shard.rows:
        request = _request(kept, row)
        if isinstance(request, str):
            if row.wanted:
                left.discard(row.instance_id)
                yield _failed(kept.settings, row, request)
        else:
            requests[row.instance_id] = request
    with closing(kept.decoder.decode(requests.values())) as decoding:  # type: ignore[type-var]  # it is a generator
        while left:
            decoded = next(decoding)
            if is_given_up and is_given_up():
                raise RunStoppedError("the shard is not wanted any more")
            key = str(decoded.key)
            if key in left:
                left.discard(key)
                yield _sample(kept, rows[key], requests[key], decoded)


def _request(kept: _Kept, row: ShardRow) -> SampleRequest | str:
    """The request, or why there is none."""
    from jinja2 import TemplateError

    theta, t = kept.model.chosen.theta, kept.model.chosen.t
    prompt, prompt_t = _prompt(theta, row.messages), _prompt(t, row.messages_t or row.messages)
    same = row.messages_t is None and isinstance(prompt, str) == isinstance(prompt_t, str)
    seed = rollout_seed(kept.settings.seed, row.instance_id, 0)
    try:
        request = kept.model.request(row.instance_id, prompt, None if same else prompt_t, seed)
    except TemplateError as error:
        return f"the chat template refuses the prompt: {error}"
    if why := kept.decoder.refusal(request):
        return f"the prompt {why}"
    return request


def _prompt(side: ModelSpec, messages: list[Message]) -> Prompt:
    """The messages, or for a model without a chat template their text."""
    if side.tokenizer.chat_template:
        return messages
    return "\n\n".join(message["content"] for message in messages)


def _failed(settings: SamplerSettings, row: ShardRow, why: str) -> dict[str, Any]:
    return _row(settings, row) | {"error": {"type": "prompt", "message": why}}


def _sample(kept: _Kept, row: ShardRow, request: SampleRequest, decoded: Decoded) -> dict[str, Any]:
    made = _row(kept.settings, row)
    told = {"diagnostics": means(decoded.diagnostics), "tokens": listed(decoded.diagnostics)}
    return made | {
        "completion": kept.model.text(decoded.token_ids),
        "usage": {"prompt_tokens": len(request.prompt_ids_theta), "completion_tokens": len(decoded.token_ids)},
        "finish_reason": decoded.finish_reason,
        "metadata": made["metadata"] | told,
    }


def _row(settings: SamplerSettings, row: ShardRow) -> dict[str, Any]:
    """A journal row that is neither a sample nor a failure yet."""
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
    """Means over an answer's tokens, and two standard deviations; a number that is none does not count."""
    found: dict[str, float | None] = {}
    for name, values in diagnostics.items():
        finite = [value for value in values if math.isfinite(value)]
        mean = math.fsum(finite) / len(finite) if finite else None
        found[f"{name}_mean"] = _rounded(mean)
        if name in ("alpha", "ess_ratio") and mean is not None:
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite))
            found[f"{name}_std"] = _rounded(spread)
    return found


def listed(diagnostics: dict[str, list[float]]) -> dict[str, list[float | None]]:
    """The numbers of every token, to five significant digits; null for one that is none."""
    return {name: [_rounded(value) for value in _finite(diagnostics[name])] for name in LISTED if name in diagnostics}


def _finite(values: Sequence[float]) -> Iterator[float | None]:
    return (value if math.isfinite(value) else None for value in values)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
