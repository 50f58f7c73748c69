"""vLLM's hook into a batch's logits. Imports vLLM."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from rollmill.jobs.optimal_sampling.pair_engine.batch import PairBatch, PairRow

SAMPLE, SIDE = "rollmill_sample", "rollmill_side"
"""What a request of ours says in its `extra_args`."""

BATCH = PairBatch()
"""Of the one engine in this process: vLLM makes the processor itself, from its class."""


class PairProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM is not in the environment that is checked
    """Draws from q for the rows of `BATCH` that are in step."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        """Return False: greedy sampling takes the token that was drawn."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Note, before each pass, which rows came, went and moved."""
        if batch_update is not None:
            BATCH.update(
                batch_update.removed,
                [(index, _row(params, tokens)) for index, params, _, tokens in batch_update.added],
                [(source, target, kind == MoveDirectionality.SWAP) for source, target, kind in batch_update.moved],
            )

    def apply(self, logits: Tensor) -> Tensor:
        """Draw, after each pass, from logits [rows, vocabulary] float32."""
        return BATCH.draw_into(logits)


def _row(params: SamplingParams, tokens: list[int]) -> PairRow | None:
    extra_args = getattr(params, "extra_args", None) or {}
    return PairRow(extra_args[SAMPLE], extra_args[SIDE], tokens) if SAMPLE in extra_args else None
