"""Pairs the rows of a vLLM batch, and draws one token of q for both rows of each pair.

A sample is a pair of requests, one for each model. A logits processor gets rows as vLLM batches them. The two rows of a
sample that are in step, which have the same number of tokens, get the same token of q. A row without its partner is
left as it is, and the engine notices that its sample has fallen out of step. Imports torch and the standard library
only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from rollmill.errors import RunStoppedError
from rollmill.jobs.optimal_sampling.device_copy import upload
from rollmill.jobs.optimal_sampling.token_sampler import (
    NonFiniteLogitsError,
    TokenSampler,
    Uniforms,
    non_finite_message,
)


class PairRow(NamedTuple):
    """One of the two rows of a sample."""

    sample: int
    side: int
    """0: theta; 1: t."""
    tokens: Sequence[int]
    """The row's output tokens so far: vLLM's own list, which grows."""


@dataclass
class PairSample:
    """A sample that is being decoded, with the last token drawn for it."""

    key: object
    """The caller's id of the sample."""
    uniforms: Uniforms
    position: int = -1
    """Index in the answer of the last token drawn."""
    token: int = -1
    diagnostics: list[float] = field(default_factory=list)
    logprob: float = 0.0


class PairBatch:
    """The rows of vLLM's batch, and the samples that are being decoded, by number."""

    def __init__(self) -> None:
        self.samples: dict[int, PairSample] = {}
        self.sampler: TokenSampler | None = None
        self.vocabulary = 0
        self._rows: dict[int, PairRow] = {}

    def update(
        self,
        removed: Iterable[int],
        added: Iterable[tuple[int, PairRow | None]],
        moved: Iterable[tuple[int, int, bool]],
    ) -> None:
        """Apply vLLM's changes of its batch, in vLLM's order: removals, additions, moves.

        `added` are (index, row), None for a request that is not ours; `moved` are (source, target, is a swap).
        """
        rows = self._rows
        for index in removed:
            rows.pop(index, None)
        for index, row in added:
            _set_row(rows, index, row)
        # Both rows are taken out first: a swap would overwrite one of them.
        for source, target, is_swap in moved:
            moving, displaced = rows.pop(source, None), rows.pop(target, None)
            _set_row(rows, target, moving)
            if is_swap:
                _set_row(rows, source, displaced)

    def draw_into(self, logits: Tensor) -> Tensor:
        """Draw a token for every sample that is in step, and make it the argmax of both rows' logits.

        Changes `logits` [rows, vocabulary] in place, and returns it. Raises `RunStoppedError` for logits that are not
        finite.
        """
        pairs = self._pairs_in_step()
        if not pairs or self.sampler is None:
            return logits
        # [pairs, 2]: indices of theta's row and of t's in the batch.
        rows = upload([[theta, t] for theta, t, _ in pairs], torch.long, logits.device)
        theta, t = (logits.index_select(0, rows[:, side])[:, : self.vocabulary] for side in (0, 1))
        samples = [(self.samples[row.sample], len(row.tokens)) for _, _, row in pairs]
        try:
            step = self.sampler.draw(theta, t, [sample.uniforms[position] for sample, position in samples])
        except NonFiniteLogitsError as error:
            sample, position = samples[error.row]
            raise RunStoppedError(non_finite_message(sample.key, position)) from None
        for (sample, position), token, diagnostics, logprob in zip(samples, *step, strict=True):
            sample.position, sample.token, sample.diagnostics, sample.logprob = position, token, diagnostics, logprob
        # The rows are requested with temperature 0: vLLM takes the greatest logit, which is now the drawn token's.
        tokens = upload(step.tokens, torch.long, logits.device)
        logits[rows.T.flatten(), tokens.repeat(2)] = torch.finfo(logits.dtype).max
        return logits

    def _pairs_in_step(self) -> list[tuple[int, int, PairRow]]:
        """Return (index of theta's row, index of t's row, theta's row) of each sample that is in step."""
        sides: dict[int, dict[int, tuple[int, PairRow]]] = {}
        # In the order of the batch, so that pairs are drawn in the same order in every run.
        for index, row in sorted(self._rows.items()):
            if row.sample in self.samples:
                sides.setdefault(row.sample, {})[row.side] = index, row
        return [
            (by_side[0][0], by_side[1][0], by_side[0][1])
            for by_side in sides.values()
            if len(by_side) == 2 and len(by_side[0][1].tokens) == len(by_side[1][1].tokens)
        ]


def _set_row(rows: dict[int, PairRow], index: int, row: PairRow | None) -> None:
    if row is None:
        rows.pop(index, None)
    else:
        rows[index] = row
