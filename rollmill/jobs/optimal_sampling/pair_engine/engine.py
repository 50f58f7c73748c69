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
class _Flight:
    request: SampleRequest
    room: int
    blocks: int
    sample: PairSample
    attempts: int
    tokens: list[int] = field(default_factory=list)
    told: list[list[float]] = field(default_factory=list)


class PairEngine:
    """One vLLM in this process, with the adapters of both sides.

    `arguments` are vLLM's own, as on its command line. Raises `InputError` for what one engine cannot hold, and what
    vLLM raises.
    """

    def __init__(self, arguments: Sequence[str], adapters: Sequence[str | None]) -> None:
        parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="--vllm_args"))
        given = EngineArgs.from_cli_args(parser.parse_args(list(arguments)))
        given.skip_tokenizer_init = True
        given.async_scheduling = False  # a step is over before the next one is made
        given.logits_processors = [PairProcessor]
        self.vllm = LLMEngine.from_engine_args(given)
        config = self.vllm.vllm_config
        if config.parallel_config.world_size > 1:
            raise InputError("--vllm_args: one engine of a pair is on one device: leave out parallel sizes")
        places = list(dict.fromkeys(filter(None, adapters)))
        lora = {place: LoRARequest(f"adapter_{number}", number, place) for number, place in enumerate(places, 1)}
        self.lora = [lora[place] if place else None for place in adapters]
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
        """Draws every sample; gives them as they are ready. Ends early when `is_given_up`, asked before each step.

        Raises `RunStoppedError` for logits that are no numbers, and for a sample that does not come into step.
        """
        BATCH.drawer, BATCH.vocabulary = Drawer(**job.drawing), job.vocabulary
        waiting = deque((request, 0) for request in requests)
        flights: dict[int, _Flight] = {}
        try:
            while (waiting or flights) and not is_given_up():
                self._admit(job, waiting, flights)
                emitted = self._step()
                for number, flight in list(flights.items()):
                    sides = emitted.get(number)
                    if sides is None:
                        continue
                    if not self._takes(flight, sides):
                        self._leave(number, flights)
                        waiting.appendleft((flight.request, self._again(flight)))
                        continue
                    stop = flight.tokens[-1] in job.end_tokens
                    if stop or len(flight.tokens) == flight.room:
                        self._leave(number, flights)
                        ended = "stop" if stop else "length"
                        yield Decoded(flight.request.key, flight.tokens, ended, by_field(flight.told))
        finally:
            for number in list(flights):
                self._leave(number, flights)

    def _step(self) -> dict[int, dict[int, list[int]]]:
        """One pass of the engine: sample -> side -> the tokens that it gave."""
        emitted: dict[int, dict[int, list[int]]] = {}
        for output in self.vllm.step():
            number, side = map(int, output.request_id.split("-"))
            emitted.setdefault(number, {})[side] = list(output.outputs[0].token_ids)
        return emitted

    def _takes(self, flight: _Flight, sides: dict[int, list[int]]) -> bool:
        """Whether both rows gave the token that was drawn for this place; it is then the sample's."""
        sample = flight.sample
        if sample.place != len(flight.tokens) or any(sides.get(side) != [sample.token] for side in SIDES):
            return False
        flight.tokens.append(sample.token)
        flight.told.append(sample.told)
        return True

    def _again(self, flight: _Flight) -> int:
        self.redone += 1
        if flight.attempts == PATIENCE:
            raise RunStoppedError(
                f"the two rows of {flight.request.key} fell out of step {PATIENCE} times: give a smaller --batch_size, "
                "or --max-num-batched-tokens in --vllm_args"
            )
        return flight.attempts + 1

    def _admit(self, job: Job, waiting: deque[tuple[SampleRequest, int]], flights: dict[int, _Flight]) -> None:
        """Those that are next, while both their rows fit into the batch, the cache and the next step."""
        rows = 2 * min(job.batch_size, self._rows // 2)
        blocks = self._blocks - sum(flight.blocks for flight in flights.values())
        tokens = self.step_tokens - 2 * len(flights)
        while waiting and 2 * len(flights) < rows:
            request, attempts = waiting[0]
            room = min(job.max_new_tokens, self.longest - request.longer)
            needed = 2 * -(-(request.longer + room) // self._block)
            length = len(request.prompt_ids_theta) + len(request.prompt_ids_t)
            if not self._fits(needed <= blocks, length <= tokens) and flights:
                return
            waiting.popleft()
            blocks, tokens = blocks - needed, tokens - length
            self._number += 1
            sample = PairSample(request.key, Uniforms(request.seed))
            flights[self._number] = _Flight(request, room, needed, sample, attempts)
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

    def _leave(self, number: int, flights: dict[int, _Flight]) -> None:
        self.vllm.abort_request([f"{number}-{side}" for side in SIDES])
        flights.pop(number, None)
        BATCH.samples.pop(number, None)
