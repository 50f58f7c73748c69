"""Exact decoding of q with both models in one vLLM, which runs in a process with vLLM's own Python environment."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rollmill.errors import InputError, RunStoppedError, ServingError
from rollmill.inference.adapter import read_adapter, room_for_adapters
from rollmill.inference.devices import driver_version, use_line
from rollmill.inference.machine import machine_arguments
from rollmill.inference.server import ServerConfig
from rollmill.inference.server_log import ServerLog
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.inference.visible_gpus import find_gpus
from rollmill.jobs.optimal_sampling.model_spec import PairSpec, context_of, logits_of
from rollmill.jobs.optimal_sampling.pair_engine.link import Listener
from rollmill.jobs.optimal_sampling.pair_flags import check_flags, pair_flags
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler, check_setting
from rollmill.jobs.optimal_sampling.vocabulary import common_size
from rollmill.terminal.stall_watch import TimedStep

_log = logging.getLogger(__name__)

_WORKER = "rollmill.jobs.optimal_sampling.pair_engine.worker"
_ROOT = Path(__file__).parents[3]
_SOCKET = "socket"
_POLL_S = 0.25
_EXIT_TIMEOUT_S = 10.0
_SLOWEST_TOKEN_S = 2.0
"""Seconds per token before a stall is assumed: vLLM's process sends a message only when an answer is complete."""


class VllmPair:
    """Both models in one vLLM, which takes a minute to start, and ends with `close` and with this process.

    It has one set of weights, and an adapter for each side. Raises `InputError` for a pair that one vLLM cannot hold,
    and `ServingError` where it does not start.

    Args:
        spec: The two models.
        device: None; vLLM uses the device that it is built for.
        dtype: Dtype of the weights; None for bfloat16 on a GPU, float32 on a CPU.
        batch_size: Most samples at the same time.
        arguments: More of vLLM's arguments, as in a shell.
    """

    def __init__(
        self,
        spec: PairSpec,
        *,
        device: str | None = None,
        dtype: Any = None,
        batch_size: int = 8,
        arguments: str = "",
    ) -> None:
        if not spec.shared:
            raise InputError(
                f"backend vllm: {spec.theta.name} and {spec.t.name} have weights of their own, and one vLLM holds "
                "one model with adapters: give LoRA adapters of one base, or --backend transformers"
            )
        if device is not None:
            raise InputError(
                f"device {device!r}: vLLM takes the device that it is built for: choose one by CUDA_VISIBLE_DEVICES"
            )
        self.vocabulary = common_size(spec.vocabulary.size, {spec.theta.base: logits_of(spec.theta.base)})
        self.excluded = spec.vocabulary.excluded
        self.end_tokens = sorted(spec.end_tokens)
        self.batch_size = batch_size
        adapters = [spec.theta.adapter, spec.t.adapter]
        engine_args, environment = engine_arguments(spec, dtype, batch_size, arguments)
        # The value behind the last `--dtype`: the user's arguments come after ours.
        effective_dtype = engine_args[len(engine_args) - 1 - engine_args[::-1].index("--dtype") + 1]
        gpus = find_gpus().models
        self.used: dict[str, Any] = {"device": "cuda" if gpus else "cpu", "dtype": effective_dtype, "count": 1}
        """Hardware and dtype; see `describe_use`."""
        if gpus:
            self.used |= {"names": gpus[:1], "driver": driver_version()}
        _log.info("loading the models on %s", use_line(self.used))
        self._folder, self._has_died = Path(tempfile.mkdtemp(prefix="rollmill-vllm-")), False
        try:
            self._start(engine_args, environment, adapters)
        except BaseException:
            self._remove_files()
            raise

    def _start(self, arguments: list[str], environment: dict[str, str], adapters: list[str | None]) -> None:
        config, log, path = ServerConfig(), self._folder / "log", self._folder / _SOCKET
        self._server_log = ServerLog(log)
        listener = Listener(path)
        command = [config.interpreter(), "-m", _WORKER, str(path)]
        _log.info("starting vLLM: %s", shlex.join(arguments))
        self._process = SupervisedProcess(command, log=log, environment=environment, grace_s=config.grace_s)
        try:
            # The worker connects once vLLM is imported; meanwhile it may end with an error.
            while (link := listener.wait(_POLL_S)) is None:
                if self._process.returncode is not None:
                    raise self._death("while starting")
            self._link = link
            self.send({"arguments": arguments, "adapters": adapters})
            message = self._receive("while starting")
            if refused := message.get("failed"):
                raise InputError(refused)
            ready = message["ready"]
        except BaseException:
            self._process.end()
            raise
        finally:
            listener.close()
        self.context_length: int = ready["longest"]
        """Context length: tokens of prompt and answer that both models take."""
        self.step_tokens: int = ready["step_tokens"]
        """Most tokens of one engine step (`max_num_batched_tokens`)."""

    def close(self) -> None:
        """End vLLM, and remove its log, unless vLLM has ended by itself before."""
        self._link.close()
        self._process.end()
        self._remove_files()

    def _remove_files(self) -> None:
        if self._has_died:
            (self._folder / _SOCKET).unlink(missing_ok=True)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to vLLM's process. Raises `ServingError` where it has ended."""
        try:
            self._link.send(message)
        except OSError:
            raise self._death("while it was sampling") from None

    def receive(self) -> dict[str, Any]:
        """Return the next message of vLLM's process. Raises `ServingError` where it has ended."""
        return self._receive("while it was sampling")

    def _receive(self, when: str) -> dict[str, Any]:
        try:
            return self._link.receive()
        except (EOFError, OSError):
            raise self._death(when) from None

    def _death(self, when: str) -> ServingError:
        self._has_died = True
        return self._server_log.death(self._process.wait(_EXIT_TIMEOUT_S), when)


def engine_arguments(spec: PairSpec, dtype: Any, batch_size: int, more: str) -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment for vLLM; of an argument that occurs twice, the last one counts.

    Raises `InputError` for arguments that would break the pairs, and `ServingError` where the installed vLLM cannot
    use the machine's GPU; see `check_devices`.

    Args:
        spec: The two models.
        dtype: Dtype of the weights; None for bfloat16 on a GPU, float32 on a CPU.
        batch_size: Samples at the same time; each has two rows.
        more: The user's arguments, as in a shell.
    """
    user_arguments = shlex.split(more)
    check_flags(user_arguments)
    installed = ServerConfig().vllm()
    base, on_gpu = spec.theta.base, installed.build != "cpu"
    ours, environment = machine_arguments(base, on_gpu=on_gpu)
    default_dtype = "bfloat16" if on_gpu else "float32"
    arguments = [
        *("--model", base, "--max-model-len", "auto", "--max-num-seqs", str(2 * batch_size)),
        "--no-enable-prefix-caching",  # an answer's last bits must not depend on earlier answers
        *ours,
        *("--dtype", str(dtype).removeprefix("torch.") if dtype else default_dtype),
        *room_for_adapters([read_adapter(adapter) for adapter in spec.adapters]),
        *user_arguments,
    ]
    arguments += pair_flags(arguments, context=context_of(base), batch_size=batch_size, user_arguments=user_arguments)
    environment |= installed.environment(os.environ) | {
        "PYTHONPATH": str(_ROOT),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # both rows of a pair must be added before the same step
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the V2 runner takes no custom logits processors
    }
    return arguments, environment


class VllmDecoder:
    """Generates answers from q in a vLLM, with continuous batching. Arguments as for `Decoder`."""

    def __init__(self, pair: VllmPair, *, batch_size: int = 8, max_new_tokens: int = 512, **sampling: Any) -> None:
        check_setting(batch_size >= 1, "batch_size", batch_size, "1 or more")
        check_setting(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "1 or more")
        TokenSampler(**sampling)  # raises for values out of bounds
        self.pair, self.batch_size, self.max_new_tokens = pair, min(batch_size, pair.batch_size), max_new_tokens
        self._sampling = {**sampling, "excluded": pair.excluded}

    def decode(self, samples: Iterable[SampleRequest]) -> Iterator[Decoded]:
        """Generate every sample; yield each when it is complete. All requests are read before the first is sent.

        Their keys must differ as text, too. Raises `InputError` for a prompt that `refusal` refuses, `RunStoppedError`
        for logits that are not finite, and `ServingError` where vLLM ends.
        """
        requests = list(samples)
        for request in requests:
            if refusal := self.refusal(request):
                raise InputError(f"the prompt of {request.key} {refusal}")
        job = {
            "sampling": self._sampling,
            "vocabulary": self.pair.vocabulary,
            "end_tokens": self.pair.end_tokens,
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
        }
        keys = {str(request.key): request.key for request in requests}
        encoded = [asdict(replace(request, key=str(request.key))) for request in requests]
        self.pair.send({"job": job, "samples": encoded})
        is_done = False
        try:
            while not is_done:
                with TimedStep(_SLOWEST_TOKEN_S * self.max_new_tokens):
                    message = self.pair.receive()
                if "decoded" in message:
                    decoded = Decoded(**message["decoded"])
                    yield replace(decoded, key=keys[str(decoded.key)])
                else:
                    is_done = True
                    _finish(message, requests)
        finally:
            if not is_done:
                self._stop()

    def refusal(self, request: SampleRequest) -> str | None:
        """Return the reason why a prompt cannot be answered; None where it can."""
        # Both prompts must be read in one step: a prompt split over steps (chunked prefill) puts its row out of step.
        tokens, most = len(request.prompt_ids_theta) + len(request.prompt_ids_t), self.pair.step_tokens
        if tokens > most:
            return (
                f"has {tokens:,} tokens for both models, and vLLM reads {most:,} in one step: "
                f"--vllm_args '--max-num-batched-tokens {tokens}' lets it"
            )
        return request.refusal(self.pair.context_length)

    def _stop(self) -> None:
        """Stop the job, and read its remaining messages, so that the next job begins with its own."""
        self.pair.send({"stop": True})
        while "decoded" in self.pair.receive():
            pass


def _finish(message: dict[str, Any], requests: list[SampleRequest]) -> None:
    """Handle the last message of a job. Raises `RunStoppedError` where the job failed."""
    if failed := message.get("failed"):
        raise RunStoppedError(failed)
    if redone := message["done"]["redone"]:
        _log.info("%d times a sample of %d fell out of step in vLLM, and was drawn again", redone, len(requests))
