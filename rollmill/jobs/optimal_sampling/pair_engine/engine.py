"""Drives a vLLM so that both rows of every sample get the same token in the same step. Imports vLLM.

A sample comes in when both its prompts can be read in the next step, and when there is room in the cache for both rows
to their longest end, so that none is put off. A sample whose rows fall out of step all the same begins again, from the
same seed: nothing of it has been given.
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
from rollmill.jobs.optimal_sampling.token_sampler import Drawer, Uniforms, by_field

SIDES = (0, 1)
PATIENCE = 8
"""How often a sample that falls out of step begins again."""


class Job(NamedTuple):
    """How a number of samples are drawn."""

    drawing: dict[str, Any]
    """See `Drawer`."""
    vocabulary: int
    end_tokens: list[int]
    max_new_tokens: int
    batch_size: int


@dataclass
class _ActivePair:
    request: SampleRequest
    room: int
    blocks: int
    sample: PairSample
    attempts: int
    tokens: list[int] = field(default_factory=list)
    diagnostics: list[list[float]] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class PairEngine:
    """One vLLM in this process, with the adapters of both sides.

    `arguments` are vLLM's own, as on its command line. Raises `InputError` for what one engine cannot hold, and what
    vLLM raises.
    """

    def __init__(self, arguments: Sequence[str], adapters: Sequence[str | None]) -> None:
        parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="--vllm_args"))
        engine_args = EngineArgs.from_cli_args(parser.parse_args(list(arguments)))
        engine_args.skip_tokenizer_init = True
        engine_args.async_scheduling = False  # a step is over before the next one is made
        engine_args.logits_processors = [PairProcessor]
        self.vllm = LLMEngine.from_engine_args(engine_args)
        config = self.vllm.vllm_config
        if config.parallel_config.world_size > 1:
            raise InputError("--vllm_args: one engine of a pair is on one device: leave out parallel sizes")
        paths = list(dict.fromkeys(filter(None, adapters)))
        lora = {path: LoRARequest(f"adapter_{number}", number, path) for number, path in enumerate(paths, 1)}
        self.lora = [lora[path] if path else None for path in adapters]
        self._block = int(config.cache_config.block_size)
        self._blocks = int(config.cache_config.num_gpu_blocks) - 1  # vLLM keeps one for itself
        self._rows = int(config.scheduler_config.max_num_seqs)
        self.step_tokens = int(config.scheduler_config.max_num_batched_tokens)
        """Tokens that it reads in one step."""
        self.longest = min(int(config.model_config.max_model_len), self._blocks // 2 * self._block)
        """Tokens, prompt and answer, of each of two rows."""
        self.redone = 0
        """Samples that fell out of step and began again."""
        self._number = 0

    def decode(
        self, job: Job, requests: Sequence[SampleRequest], is_given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[Decoded]:
        """Draw every sample; yield each when it is ready. Ends early when `is_given_up`, asked before each step.

        Raises `RunStoppedError` for logits that are no numbers, and for a sample that does not come into step.
        """
        BATCH.drawer, BATCH.vocabulary = Drawer(**job.drawing), job.vocabulary
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
                    if not self._append_token(pair, sides):
                        self._remove(number, active)
                        waiting.appendleft((pair.request, self._next_attempt(pair)))
                        continue
                    stop = pair.tokens[-1] in job.end_tokens
                    if stop or len(pair.tokens) == pair.room:
                        self._remove(number, active)
                        ended = "stop" if stop else "length"
                        diagnostics = by_field(pair.diagnostics)
                        yield Decoded(pair.request.key, pair.tokens, ended, diagnostics, pair.logprobs)
        finally:
            for number in list(active):
                self._remove(number, active)

    def _step(self) -> dict[int, dict[int, list[int]]]:
        """Run one pass of the engine: sample -> side -> the tokens that it gave."""
        emitted: dict[int, dict[int, list[int]]] = {}
        for output in self.vllm.step():
            number, side = map(int, output.request_id.split("-"))
            emitted.setdefault(number, {})[side] = list(output.outputs[0].token_ids)
        return emitted

    def _append_token(self, pair: _ActivePair, sides: dict[int, list[int]]) -> bool:
        """Append the token drawn at this position; return whether both rows produced it."""
        sample = pair.sample
        if sample.position != len(pair.tokens) or any(sides.get(side) != [sample.token] for side in SIDES):
            return False
        pair.tokens.append(sample.token)
        pair.diagnostics.append(sample.diagnostics)
        pair.logprobs.append(sample.logprob)
        return True

    def _next_attempt(self, pair: _ActivePair) -> int:
        self.redone += 1
        if pair.attempts == PATIENCE:
            raise RunStoppedError(
                f"the two rows of {pair.request.key} fell out of step {PATIENCE} times: give a smaller --batch_size, "
                "or --max-num-batched-tokens in --vllm_args"
            )
        return pair.attempts + 1

    def _admit(self, job: Job, waiting: deque[tuple[SampleRequest, int]], active: dict[int, _ActivePair]) -> None:
        """Admit the next requests, while both their rows fit into the batch, the cache and the next step."""
        rows = 2 * min(job.batch_size, self._rows // 2)
        blocks = self._blocks - sum(pair.blocks for pair in active.values())
        tokens = self.step_tokens - 2 * len(active)
        while waiting and 2 * len(active) < rows:
            request, attempts = waiting[0]
            room = min(job.max_new_tokens, self.longest - request.longer)
            needed = 2 * -(-(request.longer + room) // self._block)
            length = len(request.prompt_ids_theta) + len(request.prompt_ids_t)
            if not self._fits(needed <= blocks, length <= tokens) and active:
                return
            waiting.popleft()
            blocks, tokens = blocks - needed, tokens - length
            self._number += 1
            sample = PairSample(request.key, Uniforms(request.seed))
            active[self._number] = _ActivePair(request, room, needed, sample, attempts)
            BATCH.samples[self._number] = sample
            for side, prompt in zip(SIDES, (request.prompt_ids_theta, request.prompt_ids_t), strict=True):
                self._add(self._number, side, prompt, room, job)

    def _fits(self, *room: bool) -> bool:
        return all(room)

    def _add(self, number: int, side: int, prompt: Sequence[int], room: int, job: Job) -> None:
        params = SamplingParams(
            temperature=0.0,
            max_tokens=room,
            stop_token_ids=job.end_tokens,
            ignore_eos=True,  # either model's end tokens are among those above
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
