"""The rows of a vLLM batch that belong together, and the one token that each two of them get.

A sample is a pair of requests, one for each model. Rows come to a logits processor as vLLM batches them; two that are
in step, which have given the same number of tokens, get a token of q; a row that is alone is left as it is, and whoever
drives the engine sees that its sample has fallen out of step. Imports torch and the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from rollmill.errors import RunStoppedError
from rollmill.jobs.optimal_sampling.token_sampler import Drawer, NoNumbersError, Uniforms, no_numbers


class PairRow(NamedTuple):
    """One of the two rows of a sample."""

    sample: int
    side: int
    """0: theta; 1: t."""
    tokens: Sequence[int]
    """What it has given so far; vLLM makes it longer."""


@dataclass
class PairSample:
    """A sample in the engine."""

    key: object
    """The caller's id of the sample."""
    uniforms: Uniforms
    position: int = -1
    """Position of the token drawn last."""
    token: int = -1
    diagnostics: list[float] = field(default_factory=list)
    logprob: float = 0.0


class PairBatch:
    """The batch as vLLM has it, and the samples being drawn, by number."""

    def __init__(self) -> None:
        self.samples: dict[int, PairSample] = {}
        self.drawer: Drawer | None = None
        self.vocabulary = 0
        self._rows: dict[int, PairRow] = {}

    def update(
        self,
        removed: Iterable[int],
        added: Iterable[tuple[int, PairRow | None]],
        moved: Iterable[tuple[int, int, bool]],
    ) -> None:
        """Take over what vLLM changed: rows by index, and moves from one to another, `True` for both ways."""
        rows = self._rows
        for index in removed:
            rows.pop(index, None)
        for index, row in added:
            _put(rows, index, row)
        for source, target, both in moved:
            moving, displaced = rows.pop(source, None), rows.pop(target, None)
            _put(rows, target, moving)
            if both:
                _put(rows, source, displaced)

    def draw_into(self, logits: Tensor) -> Tensor:
        """Make both rows of every sample that is in step give the token that is drawn for it, whatever is sampled.

        `logits` [rows, vocabulary] is changed where it is. Raises `RunStoppedError` for logits that are no numbers.
        """
        pairs = self._in_step()
        if not pairs or self.drawer is None:
            return logits
        rows = torch.tensor([[theta, t] for theta, t, _ in pairs], device=logits.device)
        theta, t = (logits[rows[:, side], : self.vocabulary] for side in (0, 1))
        samples = [(self.samples[row.sample], len(row.tokens)) for _, _, row in pairs]
        try:
            drawn = self.drawer.draw(theta, t, [sample.uniforms[position] for sample, position in samples])
        except NoNumbersError as error:
            sample, position = samples[error.row]
            raise RunStoppedError(no_numbers(sample.key, position)) from None
        for (sample, position), token, diagnostics, logprob in zip(samples, *drawn, strict=True):
            sample.position, sample.token, sample.diagnostics, sample.logprob = position, token, diagnostics, logprob
        tokens = torch.tensor(drawn.tokens, device=logits.device)
        logits[rows.T.flatten(), tokens.repeat(2)] = torch.finfo(logits.dtype).max
        return logits

    def _in_step(self) -> list[tuple[int, int, PairRow]]:
        """Return the indices of theta's row and of t's, and one of the two rows, for each sample that is in step."""
        sides: dict[int, dict[int, tuple[int, PairRow]]] = {}
        for index, row in sorted(self._rows.items()):
            if row.sample in self.samples:
                sides.setdefault(row.sample, {})[row.side] = index, row
        return [
            (by_side[0][0], by_side[1][0], by_side[0][1])
            for by_side in sides.values()
            if len(by_side) == 2 and len(by_side[0][1].tokens) == len(by_side[1][1].tokens)
        ]


def _put(rows: dict[int, PairRow], index: int, row: PairRow | None) -> None:
    if row is None:
        rows.pop(index, None)
    else:
        rows[index] = row
