"""Runs a vLLM engine so that both rows of every sample get the same token in the same step. Imports vLLM.

A sample is admitted when both prompts fit into the next step, and the KV cache has blocks for both rows at their full
length, so that vLLM preempts neither. A sample whose rows fall out of step all the same begins again with the same
seed; nothing of it has been returned yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vllm import EngineArgs, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.llm_engine import LLMEngine

from rollmill.errors import InputError, RunStoppedError
from rollmill.jobs.optimal_sampling.pair_engine.batch import PairSample
from rollmill.jobs.optimal_sampling.pair_engine.processor import BATCH, SAMPLE, SIDE, PairProcessor
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler, Uniforms, by_field

SIDES = (0, 1)
MAX_ATTEMPTS = 8
"""Number of times that a sample which falls out of step begins again."""
_PARALLEL = (
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    *("decode_context_parallel_size", "prefill_context_parallel_size"),
)


class Job(NamedTuple):
    """Settings of a number of samples."""

    sampling: dict[str, Any]
    """Arguments of `TokenSampler`."""
    vocabulary: int
    """Number of token ids that are drawn from, from 0 on."""
    end_tokens: list[int]
    max_new_tokens: int
    batch_size: int


@dataclass
class _ActivePair:
    """A sample that is being decoded, as two requests of the engine."""

    request: SampleRequest
    max_tokens: int
    blocks: int
    """KV cache blocks of both rows at their full length."""
    sample: PairSample
    attempts: int
    tokens: list[int] = field(default_factory=list)
    diagnostics: list[list[float]] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class PairEngine:
    """One vLLM engine in this process, with the adapters of both sides.

    `arguments` are those of vLLM's command line. Raises `InputError` for parallel sizes, and what vLLM raises.
    """

    def __init__(self, arguments: Sequence[str], adapters: Sequence[str | None]) -> None:
        parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="--vllm_args"))
        engine_args = EngineArgs.from_cli_args(parser.parse_args(list(arguments)))
        _check(engine_args)
        engine_args.skip_tokenizer_init = True
        engine_args.async_scheduling = False  # the tokens of a step are known before the next one is scheduled
        engine_args.logits_processors = [PairProcessor]
        self.vllm = LLMEngine.from_engine_args(engine_args)
        config = self.vllm.vllm_config
        paths = list(dict.fromkeys(filter(None, adapters)))
        lora = {path: LoRARequest(f"adapter_{number}", number, path) for number, path in enumerate(paths, 1)}
        self.lora = [lora[path] if path else None for path in adapters]
        self._block = int(config.cache_config.block_size)
        self._blocks = int(config.cache_config.num_gpu_blocks) - 1  # vLLM reserves the null block
        self._rows = int(config.scheduler_config.max_num_seqs)
        self.step_tokens = int(config.scheduler_config.max_num_batched_tokens)
        """Most tokens of one step."""
        self.context_length = min(int(config.model_config.max_model_len), self._blocks // 2 * self._block)
        """Most tokens of a row, prompt and answer, so that both rows of a sample fit into the KV cache."""
        self.redone = 0
        """Number of times that a sample fell out of step and began again."""
        self._number = 0

    def decode(
        self, job: Job, requests: Sequence[SampleRequest], is_given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[Decoded]:
        """Generate every sample; yield each when it is complete. Stops early when `is_given_up()`, at the next step.

        Raises `RunStoppedError` for logits that are not finite, and for a sample that keeps falling out of step.
        """
        BATCH.sampler, BATCH.vocabulary = TokenSampler(**job.sampling), job.vocabulary
        waiting = deque((request, 0) for request in requests)
        active: dict[int, _ActivePair] = {}
        try:
            while (waiting or active) and not is_given_up():
                self._admit(job, waiting, active)
                emitted = self._step()
                for number, pair in list(active.items()):
                    sides = emitted.get(number)
                    if sides is None:
                        continue
                    # A row that vLLM has scheduled without its partner got a token of its own model, not of q.
                    if not self._append_token(pair, sides):
                        self._remove(number, active)
                        waiting.appendleft((pair.request, self._next_attempt(pair)))
                        continue
                    stop = pair.tokens[-1] in job.end_tokens
                    if stop or len(pair.tokens) == pair.max_tokens:
                        self._remove(number, active)
                        reason = "stop" if stop else "length"
                        diagnostics = by_field(pair.diagnostics)
                        yield Decoded(pair.request.key, pair.tokens, reason, diagnostics, pair.logprobs)
        finally:
            for number in list(active):
                self._remove(number, active)

    def _step(self) -> dict[int, dict[int, list[int]]]:
        """Run one step of the engine; return the new tokens by number of the sample and side."""
        emitted: dict[int, dict[int, list[int]]] = {}
        for output in self.vllm.step():
            number, side = map(int, output.request_id.split("-"))
            emitted.setdefault(number, {})[side] = list(output.outputs[0].token_ids)
        return emitted

    def _append_token(self, pair: _ActivePair, sides: dict[int, list[int]]) -> bool:
        """Append the token drawn at this position; return False where the rows did not both produce it."""
        sample = pair.sample
        if sample.position != len(pair.tokens) or any(sides.get(side) != [sample.token] for side in SIDES):
            return False
        pair.tokens.append(sample.token)
        pair.diagnostics.append(sample.diagnostics)
        pair.logprobs.append(sample.logprob)
        return True

    def _next_attempt(self, pair: _ActivePair) -> int:
        self.redone += 1
        if pair.attempts == MAX_ATTEMPTS:
            raise RunStoppedError(
                f"the two rows of {pair.request.key} fell out of step {MAX_ATTEMPTS} times: "
                "give a smaller --batch_size, or --max-num-batched-tokens in --vllm_args"
            )
        return pair.attempts + 1

    def _admit(self, job: Job, waiting: deque[tuple[SampleRequest, int]], active: dict[int, _ActivePair]) -> None:
        """Admit requests while both their rows fit into the batch, the KV cache and the next step.

        Args:
            job: Settings of the samples.
            waiting: (request, attempts so far), in order; those that are admitted are removed.
            active: Samples that are being decoded, by number; those that are admitted are added.
        """
        rows = 2 * min(job.batch_size, self._rows // 2)
        blocks = self._blocks - sum(pair.blocks for pair in active.values())
        tokens = self.step_tokens - 2 * len(active)  # each active row takes one token of the step
        while waiting and 2 * len(active) < rows:
            request, attempts = waiting[0]
            max_tokens = min(job.max_new_tokens, self.context_length - request.longer_prompt)
            pair_blocks = 2 * -(-(request.longer_prompt + max_tokens) // self._block)
            length = len(request.prompt_ids_theta) + len(request.prompt_ids_t)
            # With nothing else active it is admitted in any case: waiting would not help.
            if active and not self._fits(pair_blocks <= blocks, length <= tokens):
                return
            waiting.popleft()
            blocks, tokens = blocks - pair_blocks, tokens - length
            self._number += 1
            sample = PairSample(request.key, Uniforms(request.seed))
            active[self._number] = _ActivePair(request, max_tokens, pair_blocks, sample, attempts)
            BATCH.samples[self._number] = sample
            for side, prompt in zip(SIDES, (request.prompt_ids_theta, request.prompt_ids_t), strict=True):
                self._add_request(self._number, side, prompt, max_tokens, job)

    def _fits(self, *limits: bool) -> bool:
        return all(limits)

    def _add_request(self, number: int, side: int, prompt: Sequence[int], max_tokens: int, job: Job) -> None:
        """Add one of the two requests of a sample to the engine.

        Args:
            number: Number of the sample.
            side: 0 for theta, 1 for t.
            prompt: Token ids of the prompt.
            max_tokens: Most tokens of the answer.
            job: Settings of the samples.
        """
        params = SamplingParams(
            temperature=0.0,  # greedy: the logits processor makes the drawn token the argmax
            max_tokens=max_tokens,
            stop_token_ids=job.end_tokens,
            ignore_eos=True,  # the end tokens of both models are in `stop_token_ids`
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={SAMPLE: number, SIDE: side},
        )
        self.vllm.add_request(
            f"{number}-{side}", {"prompt_token_ids": list(prompt)}, params, lora_request=self.lora[side]
        )

    def _remove(self, number: int, active: dict[int, _ActivePair]) -> None:
        self.vllm.abort_request([f"{number}-{side}" for side in SIDES])
        active.pop(number, None)
        BATCH.samples.pop(number, None)


def _check(engine_args: EngineArgs) -> None:
    """Raise `InputError` for values with which the rows of a pair are not kept in step, before anything is loaded.

    Flags are checked before this process starts; these may come from abbreviations, or from a file of flags.
    """
    for name in _PARALLEL:
        if (getattr(engine_args, name, 1) or 1) > 1:
            raise InputError(f"--vllm_args: one engine of a pair is on one device: leave out {name}")
    if getattr(engine_args, "speculative_config", None):
        raise InputError("--vllm_args: the pair engine draws one token a step: leave out speculative_config")
