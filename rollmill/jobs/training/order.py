"""Order of the training rows: a function of seed and epoch, so that a resumed run continues in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import numpy as np

_MOST_GROUPS = 50
"""Groups per megabatch: the number that transformers' `get_length_grouped_indices` uses."""


def steps_per_epoch(rows: int, *, batch_size: int, accumulation: int, processes: int = 1) -> int:
    """Return the optimizer steps of an epoch; the last may have fewer batches.

    Args:
        rows: Number of training rows (packs with packing).
        batch_size: Rows per batch and process.
        accumulation: Batches per optimizer step and process.
        processes: Number of training processes (data parallel).
    """
    return max(1, ceil(ceil(ceil(rows / batch_size) / processes) / accumulation))


def epoch_order(lengths: Sequence[int], *, seed: int, epoch: int, group: int | None) -> list[int]:
    """Return a permutation of the row numbers.

    Groups are made as in transformers' `get_length_grouped_indices`: rows are shuffled, cut into megabatches of up to
    50 groups, and sorted within each by length, the longest first.

    Args:
        lengths: Tokens of each row.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        group: Number of consecutive rows (those of an optimizer step) that shall have similar lengths; None for a
            plain shuffle.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    if not group:
        return [int(row) for row in shuffled]
    size = group * max(1, min(len(lengths) // (group * 4), _MOST_GROUPS))
    tokens = np.asarray(lengths)
    order: list[int] = []
    for begin in range(0, len(shuffled), size):
        part = shuffled[begin : begin + size]
        order.extend(int(row) for row in part[np.argsort(-tokens[part], kind="stable")])
    longest = max(range(0, len(order), size), key=lambda begin: tokens[order[begin]], default=0)
    if order:  # the longest row first, so that memory that does not suffice shows in the first step
        order[0], order[longest] = order[longest], order[0]
    return order


class EpochSampler:
    """Sampler of a data loader that yields rows in the order of the current epoch.

    Args:
        lengths: Tokens of each row.
        seed: Seed of the run.
        group: Rows of similar length per optimizer step; None for a plain shuffle.
        epoch: Returns the number of the current epoch, from 0.
    """

    def __init__(self, lengths: Sequence[int], *, seed: int, group: int | None, epoch: Callable[[], int]) -> None:
        self._lengths = lengths
        self._seed = seed
        self._group = group
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._lengths, seed=self._seed, epoch=self._epoch(), group=self._group))

    def __len__(self) -> int:
        return len(self._lengths)
