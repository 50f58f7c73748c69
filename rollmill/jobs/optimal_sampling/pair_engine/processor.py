"""Logits processor of vLLM that draws tokens of q. Imports vLLM."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from rollmill.jobs.optimal_sampling.pair_engine.batch import PairBatch, PairRow

SAMPLE, SIDE = "rollmill_sample", "rollmill_side"
"""Keys of `extra_args` in our requests."""

BATCH = PairBatch()
"""The batch of the only engine in this process; a global, since vLLM itself constructs the processor from its class."""


class PairProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM is not in the environment that is checked
    """Draws tokens of q for the rows of `BATCH` that are in step."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        """Return False: `apply` changes the argmax, which greedy sampling then takes."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Record, before each pass, the rows that vLLM has added, removed and moved."""
        if batch_update is not None:
            BATCH.update(
                batch_update.removed,
                [(index, _row(params, tokens)) for index, params, _, tokens in batch_update.added],
                [(source, target, kind == MoveDirectionality.SWAP) for source, target, kind in batch_update.moved],
            )

    def apply(self, logits: Tensor) -> Tensor:
        """Draw tokens after each pass, from logits [rows, vocabulary] float32."""
        return BATCH.draw_into(logits)


def _row(params: SamplingParams, tokens: list[int]) -> PairRow | None:
    extra_args = getattr(params, "extra_args", None) or {}
    return PairRow(extra_args[SAMPLE], extra_args[SIDE], tokens) if SAMPLE in extra_args else None
