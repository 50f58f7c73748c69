"""Keys and values of rows in flight: each row has a length of its own, and its place goes to another when it ends.

Rows lie side by side, filled from the left; what is behind a row's length is stale, and the mask hides it. A newcomer
is read in a pass of its own and written into a free place, and nothing moves. Every pass is over the whole of the rows,
so that places which nobody takes are given up (`compact`).

Imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_STEP = 64
"""Places are allocated by so many positions: copying them then costs next to nothing."""


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, [rows, heads, capacity, dimension]."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes room as the first pass shows its shape."""
        slots = self._slots
        self.keys, self.values = (
            new.new_zeros((len(slots.lengths), new.shape[1], slots.capacity, new.shape[3]))
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes each row's new states at its own position; gives what the pass attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self._slots
        if slots.filled is not None:  # newcomers attend to themselves alone
            length = key_states.shape[2]
            self.keys[slots.filled, :, :length] = key_states
            self.values[slots.filled, :, :length] = value_states
            return key_states, value_states
        self.keys[slots.every, :, slots.positions] = key_states[:, :, 0]
        self.values[slots.every, :, slots.positions] = value_states[:, :, 0]
        return self.keys[:, :, : slots.width], self.values[:, :, : slots.width]

    def arrange(self, keep: Tensor, rows: int, capacity: int) -> None:
        """Keeps these rows, in this order, with empty ones behind them."""
        if self.is_initialized:
            self.keys = _arranged(self.keys, keep, rows, capacity)
            self.values = _arranged(self.values, keep, rows, capacity)

    def get_seq_length(self) -> int:
        """Where the pass's first token stands, in the mask."""
        return 0 if self._slots.filled is not None else self._slots.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what the pass attends to."""
        return (query_length if self._slots.filled is not None else self._slots.width), 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


def _arranged(old: Tensor, keep: Tensor, rows: int, capacity: int) -> Tensor:
    new = old.new_zeros((rows, old.shape[1], capacity, old.shape[3]))  # zeros: hidden is not enough for NaN
    kept = min(old.shape[2], capacity)
    new[: len(keep), :, :kept] = old[keep, :, :kept]
    return new


class Slots(Cache):
    """A transformers `Cache` of rows with lengths of their own, for models whose layers all attend to the whole row.

    A pass is announced (`fill`, then the newcomers' pass; or `extend`, then one of one token for every row). Memory:
    rows x the longest row's length, rounded up to 64.
    """

    def __init__(self, layers: int, device: torch.device) -> None:
        self.device = device
        self.lengths: list[int] = []
        """Tokens of each row; 0 where the place is free."""
        self.capacity = 0
        """Positions of each place."""
        self.filled: Tensor | None = None
        """The rows that this pass fills; None where it extends all."""
        self.width = 1
        """Positions that an extending pass attends to."""
        self.positions = self.every = torch.empty(0, dtype=torch.long, device=device)
        self._layers = [_SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self._layers))

    def fill(self, lengths: Sequence[int]) -> list[int]:
        """Gives places to newcomers whose prompts are so long (above 0): free ones first, then new ones."""
        there = len(self.lengths)
        rows = [row for row, length in enumerate(self.lengths) if not length][: len(lengths)]
        rows += range(there, there + len(lengths) - len(rows))
        self.lengths += [0] * (max([there, *(row + 1 for row in rows)]) - there)
        for row, length in zip(rows, lengths, strict=True):
            self.lengths[row] = length
        self._arrange(list(range(there)), there)
        self.filled = torch.tensor(rows, device=self.device)
        return rows

    def extend(self) -> Tensor:
        """Every row takes one token more. Its mask, [rows, width]: what each row attends to, the new token included."""
        positions, self.lengths = self.lengths, [length + 1 for length in self.lengths]
        self.width = max(self.lengths)
        self._arrange(list(range(len(positions))), len(positions))
        self.filled = None
        self.positions = torch.tensor(positions, device=self.device)
        self.every = torch.arange(len(positions), device=self.device)
        return torch.arange(self.width, device=self.device) <= self.positions[:, None]

    def release(self, rows: Sequence[int]) -> None:
        """These rows have ended; their places are free."""
        for row in rows:
            self.lengths[row] = 0

    def compact(self) -> dict[int, int]:
        """Gives up free places. Row before -> row after, for the others."""
        keep, there = [row for row, length in enumerate(self.lengths) if length], len(self.lengths)
        self.lengths = [self.lengths[row] for row in keep]
        self._arrange(keep, there)
        return {before: after for after, before in enumerate(keep)}

    def _arrange(self, keep: list[int], there: int) -> None:
        """Makes the places fit `lengths`: `keep` of the rows that were there come first, others are empty.

        Positions are added when they are needed, and given up when half of them would do.
        """
        longest, capacity = max(self.lengths, default=0), self.capacity
        if longest > capacity or longest <= capacity // 2:
            capacity = -(-longest // _STEP) * _STEP
        if capacity == self.capacity and keep == list(range(there)) and len(self.lengths) == there:
            return
        index = torch.tensor(keep, dtype=torch.long, device=self.device)
        for layer in self._layers:
            layer.arrange(index, len(self.lengths), capacity)
        self.capacity = capacity
