"""The order in which rows are seen: a function of the seed and the epoch, so that a resumed run takes it up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import numpy as np

_MOST_GROUPS = 50


def steps_per_epoch(rows: int, *, batch_size: int, accumulation: int, processes: int = 1) -> int:
    """Return optimizer steps in which each row is seen once; the last may have fewer batches."""
    return max(1, ceil(ceil(ceil(rows / batch_size) / processes) / accumulation))


def epoch_order(lengths: Sequence[int], *, seed: int, epoch: int, group: int | None) -> list[int]:
    """Return a permutation of the rows, each once.

    `group`: how many consecutive rows (those of an optimizer step) shall be of like length, or None. As transformers'
    `get_length_grouped_indices`: shuffled, cut into up to 50 such groups at a time, sorted within, the longest first.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    if not group:
        return [int(row) for row in shuffled]
    size = group * max(1, min(len(lengths) // (group * 4), _MOST_GROUPS))
    tall = np.asarray(lengths)
    order: list[int] = []
    for begin in range(0, len(shuffled), size):
        part = shuffled[begin : begin + size]
        order.extend(int(row) for row in part[np.argsort(-tall[part], kind="stable")])
    longest = max(range(0, len(order), size), key=lambda begin: tall[order[begin]], default=0)
    if order:  # memory that will not do shows in the first step
        order[0], order[longest] = order[longest], order[0]
    return order


class EpochSampler:
    """What a data loader asks for the order; `epoch` says which it is by now."""

    def __init__(self, lengths: Sequence[int], *, seed: int, group: int | None, epoch: Callable[[], int]) -> None:
        self._lengths = lengths
        self._seed = seed
        self._group = group
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._lengths, seed=self._seed, epoch=self._epoch(), group=self._group))

    def __len__(self) -> int:
        return len(self._lengths)
