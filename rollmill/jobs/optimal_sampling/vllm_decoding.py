"""Exact decoding of q with both models in one vLLM, which runs in a process of its own environment."""

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
from rollmill.inference.devices import driver_version, gpu_names, use_line
from rollmill.inference.machine import has_accelerator, machine_arguments
from rollmill.inference.server import ServerConfig
from rollmill.inference.server_log import ServerLog
from rollmill.inference.supervised_process import KeptProcess
from rollmill.jobs.optimal_sampling.model_spec import ChosenPair, logits_of
from rollmill.jobs.optimal_sampling.pair_engine.link import Listener
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import Drawer, check
from rollmill.jobs.optimal_sampling.vocabulary import common_size
from rollmill.terminal.stall_watch import TimedStep

_log = logging.getLogger(__name__)

_WORKER = "rollmill.jobs.optimal_sampling.pair_engine.worker"
_ROOT = Path(__file__).parents[3]
_SOCKET = "socket"
_LOOK_S = 0.25
_PATIENCE_S = 10.0
_SLOWEST_TOKEN_S = 2.0
"""vLLM says something when an answer is whole: so long may each of its tokens take before that counts as a stall."""


class VllmPair:
    """Both models in one vLLM, which takes a minute to start; it ends with `close`, and with this process.

    The weights are those that both have, each side with its adapter. `batch_size`: the most samples in flight.
    `arguments`: more of vLLM's own, as in a shell. Raises `InputError` for a pair that one vLLM cannot hold, and
    `ServingError` where it does not start.
    """

    def __init__(
        self,
        chosen: ChosenPair,
        *,
        device: str | None = None,
        dtype: Any = None,
        batch_size: int = 8,
        arguments: str = "",
    ) -> None:
        if not chosen.shared:
            raise InputError(
                f"backend vllm: {chosen.theta.name} and {chosen.t.name} have weights of their own, and one vLLM holds "
                "one model with adapters: give LoRA adapters of one base, or --backend transformers"
            )
        if device is not None:
            raise InputError(
                f"device {device!r}: vLLM takes the device that it is built for: choose one by CUDA_VISIBLE_DEVICES"
            )
        self.vocabulary = common_size(chosen.vocabulary.size, {chosen.theta.base: logits_of(chosen.theta.base)})
        self.excluded = chosen.vocabulary.excluded
        self.end_tokens = sorted(chosen.end_tokens)
        self.batch_size = batch_size
        adapters = [chosen.theta.adapter, chosen.t.adapter]
        engine_args, environment = engine_arguments(chosen, dtype, batch_size, arguments)
        kind = engine_args[len(engine_args) - 1 - engine_args[::-1].index("--dtype") + 1]
        gpus = gpu_names() if has_accelerator() else []
        self.used: dict[str, Any] = {"device": "cuda" if gpus else "cpu", "dtype": kind, "count": 1}
        """What they run on; see `describe_use`."""
        if gpus:
            self.used |= {"names": gpus[:1], "driver": driver_version()}
        _log.info("loading the models on %s", use_line(self.used))
        self._folder, self._has_died = Path(tempfile.mkdtemp(prefix="rollmill-vllm-")), False
        try:
            self._start(engine_args, environment, adapters)
        except BaseException:
            self._tidy()
            raise

    def _start(self, arguments: list[str], environment: dict[str, str], adapters: list[str | None]) -> None:
        config, log, path = ServerConfig(), self._folder / "log", self._folder / _SOCKET
        self._server_log = ServerLog(log)
        listener = Listener(path)
        command = [config.interpreter(), "-m", _WORKER, str(path)]
        _log.info("starting vLLM: %s", shlex.join(arguments))
        self._process = KeptProcess(command, log=log, environment=environment, grace_s=config.grace_s)
        try:
            while (link := listener.wait(_LOOK_S)) is None:
                if self._process.returncode is not None:
                    raise self._death("while starting")
            self._link = link
            self.send({"arguments": arguments, "adapters": adapters})
            ready = self._receive("while starting")["ready"]
        except BaseException:
            self._process.end()
            raise
        finally:
            listener.close()
        self.longest: int = ready["longest"]
        """The tokens, prompt and answer, that both models take in one row."""
        self.step_tokens: int = ready["step_tokens"]
        """The tokens that it reads in one step."""

    def close(self) -> None:
        """End vLLM, and forget its log, unless it tells of an end before."""
        self._link.close()
        self._process.end()
        self._tidy()

    def _tidy(self) -> None:
        if self._has_died:
            (self._folder / _SOCKET).unlink(missing_ok=True)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)

    def send(self, message: dict[str, Any]) -> None:
        """Send vLLM's process a message. Raises `ServingError` where vLLM has ended."""
        try:
            self._link.send(message)
        except OSError:
            raise self._death("while it was drawing") from None

    def receive(self) -> dict[str, Any]:
        """Return vLLM's next message. Raises `ServingError` where it has ended."""
        return self._receive("while it was drawing")

    def _receive(self, when: str) -> dict[str, Any]:
        try:
            return self._link.receive()
        except (EOFError, OSError):
            raise self._death(when) from None

    def _death(self, when: str) -> ServingError:
        self._has_died = True
        return self._server_log.death(self._process.wait(_PATIENCE_S), when)


def engine_arguments(chosen: ChosenPair, dtype: Any, batch_size: int, more: str) -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment for vLLM; of an argument that is given twice the last one counts.

    Raises `ServingError` where the vLLM here cannot use what the machine has; see `check_devices`.

    Args:
        chosen: The pair.
        dtype: The weights' type; None for the machine's.
        batch_size: Samples at a time; each has two rows.
        more: The user's arguments, as in a shell.
    """
    installed = ServerConfig().vllm()
    base, on_gpu = chosen.theta.base, installed.build != "cpu"
    ours, environment = machine_arguments(base, on_gpu=on_gpu)
    kind = str(dtype).removeprefix("torch.") if dtype else "bfloat16" if on_gpu else "float32"
    arguments = [
        *("--model", base, "--max-model-len", "auto", "--max-num-seqs", str(2 * batch_size)),
        "--no-enable-prefix-caching",  # an answer's last bits are not to depend on what was drawn before
        *ours,
        *("--dtype", kind),
        *room_for_adapters([read_adapter(adapter) for adapter in chosen.adapters]),
        *shlex.split(more),
    ]
    environment |= installed.environment(os.environ) | {
        "PYTHONPATH": str(_ROOT),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the rows of a pair are to come in before the same step
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # it has no logits processors of one's own
    }
    return arguments, environment


class VllmDecoder:
    """Draws answers from q in a vLLM, with batches that are always full; see `Decoder`."""

    def __init__(self, pair: VllmPair, *, batch_size: int = 8, max_new_tokens: int = 512, **drawing: Any) -> None:
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        check(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "1 or more")
        Drawer(**drawing)
        self.pair, self.batch_size, self.max_new_tokens = pair, min(batch_size, pair.batch_size), max_new_tokens
        self._drawing = {**drawing, "excluded": pair.excluded}

    def decode(self, samples: Iterable[SampleRequest]) -> Iterator[Decoded]:
        """Draw every sample; yield each when it is ready. All are read before the first is drawn.

        Their keys differ also as text. Raises `InputError` for a prompt that `refusal` refuses, `RunStoppedError` for
        logits that are no numbers, and `ServingError` where vLLM ends.
        """
        requests = list(samples)
        for request in requests:
            if why := self.refusal(request):
                raise InputError(f"the prompt of {request.key} {why}")
        job = {
            "drawing": self._drawing,
            "vocabulary": self.pair.vocabulary,
            "end_tokens": self.pair.end_tokens,
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
        }
        keys = {str(request.key): request.key for request in requests}
        named = [asdict(replace(request, key=str(request.key))) for request in requests]
        self.pair.send({"job": job, "samples": named})
        is_over = False
        try:
            while not is_over:
                with TimedStep(_SLOWEST_TOKEN_S * self.max_new_tokens):
                    heard = self.pair.receive()
                if "decoded" in heard:
                    decoded = Decoded(**heard["decoded"])
                    yield replace(decoded, key=keys[str(decoded.key)])
                else:
                    is_over = True
                    _finish(heard, requests)
        finally:
            if not is_over:
                self._stop()

    def refusal(self, request: SampleRequest) -> str | None:
        """Return why there is no answer to draw for a prompt; None where there is one."""
        tokens, most = len(request.prompt_ids_theta) + len(request.prompt_ids_t), self.pair.step_tokens
        if tokens > most:
            return (
                f"has {tokens:,} tokens for both models, and vLLM reads {most:,} in one step: "
                f"--vllm_args '--max-num-batched-tokens {tokens}' lets it"
            )
        return request.refusal(self.pair.longest)

    def _stop(self) -> None:
        self.pair.send({"stop": True})
        while "decoded" in self.pair.receive():
            pass


def _finish(heard: dict[str, Any], requests: list[SampleRequest]) -> None:
    """Handle the last of a job's messages."""
    if failed := heard.get("failed"):
        raise RunStoppedError(failed)
    if redone := heard["done"]["redone"]:
        _log.info("%d times a sample of %d fell out of step in vLLM, and was drawn again", redone, len(requests))
