"""Keys and values of rows in flight: each row has a length of its own, and its place goes to another when it ends.

Rows lie side by side, filled from the left; what is behind a row's length is stale, and the mask hides it. A newcomer
is read in a pass of its own and written into a free place, and nothing moves. Every pass is over the whole of the rows,
so that places which nobody takes are given up (`compact`).

What a row's numbers are to the last bit must not depend on the other rows. So a pass attends to a multiple of 64
positions: kernels then add the same numbers in the same order, and zeros behind them. And it has no fewer rows than
`least_rows`, with idle ones if need be: kernels are chosen by the number of rows.

Imports torch and transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_STEP = 64
"""Rows get room for a multiple of this many tokens, and attend to as many: copying them then costs next to nothing."""


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, [rows, heads, capacity, dimension]."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the states as the first pass shows their shape."""
        slots = self._slots
        self.keys, self.values = (
            new.new_zeros((len(slots.lengths), new.shape[1], slots.capacity, new.shape[3]))
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write each row's new states at its own position; return what the pass attends to.

        Args:
            key_states: [rows of this pass, heads, tokens, dimension].
            value_states: The same of the values.
            *args: Not used; transformers passes it.
            **kwargs: Not used; transformers passes it.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self._slots
        if slots.filled is not None:  # newcomers attend to themselves alone
            # Padding behind a shorter prompt is written, too: the mask hides it, and the next tokens overwrite it.
            length = key_states.shape[2]
            self.keys[slots.filled, :, :length] = key_states
            self.values[slots.filled, :, :length] = value_states
            return key_states, value_states
        # One token for each row: row i's goes to its own position, behind what it holds.
        self.keys[slots.every, :, slots.positions] = key_states[:, :, 0]
        self.values[slots.every, :, slots.positions] = value_states[:, :, 0]
        return self.keys[:, :, : slots.width], self.values[:, :, : slots.width]

    def arrange(self, keep: Tensor, rows: int, capacity: int) -> None:
        """Keep these rows, in this order, with empty ones behind them."""
        if self.is_initialized:
            self.keys = _arranged(self.keys, keep, rows, capacity)
            self.values = _arranged(self.values, keep, rows, capacity)

    def get_seq_length(self) -> int:
        """Return where the pass's first token stands, in the mask."""
        return 0 if self._slots.filled is not None else self._slots.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of what the pass attends to."""
        return (query_length if self._slots.filled is not None else self._slots.width), 0

    def get_max_length(self) -> int:
        """Return that there is no maximum."""
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

    def __init__(self, layers: int, device: torch.device, *, least_rows: int = 0, window: int | None = None) -> None:
        """Begin without rows.

        Args:
            layers: Those of the model.
            device: Where the states lie.
            least_rows: Rows of a pass, idle ones included, at least.
            window: Positions that a layer attends to at most; None for all. No row is longer.
        """
        self.device = device
        self.least_rows, self._window = least_rows, window
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
        """Assign rows to newcomers with prompts of these lengths, above 0: free rows first, then new ones."""
        row_count = len(self.lengths)
        # Free rows first: as long as they suffice, no row is added to any layer.
        rows = [row for row, length in enumerate(self.lengths) if not length][: len(lengths)]
        rows += range(row_count, row_count + len(lengths) - len(rows))
        self.lengths += [0] * (max([row_count, *(row + 1 for row in rows)]) - row_count)
        for row, length in zip(rows, lengths, strict=True):
            self.lengths[row] = length
        self._arrange(list(range(row_count)), row_count)
        self.filled = torch.tensor(rows, device=self.device)
        return rows

    def extend(self) -> Tensor:
        """Lengthen every row by one token; return what each row attends to, that token included: [rows, width].

        Idle rows stay without tokens.
        """
        idle = [0] * (self.least_rows - len(self.lengths))
        before = len(self.lengths)
        positions = self.lengths + idle
        self.lengths = [length + 1 if length else 0 for length in positions]
        longest = max(self.lengths)
        self.width = min(-(-longest // _STEP) * _STEP, self._window or sys.maxsize)
        self._arrange(list(range(before)), before)
        self.filled = None
        self.positions = torch.tensor(positions, device=self.device)
        self.every = torch.arange(len(positions), device=self.device)
        # An idle row attends to the place that it writes, which the next newcomer overwrites.
        return torch.arange(self.width, device=self.device) <= self.positions[:, None]

    def release(self, rows: Sequence[int]) -> None:
        """Free the places of rows that have ended."""
        for row in rows:
            self.lengths[row] = 0

    def compact(self) -> dict[int, int]:
        """Give up free places beyond `least_rows`; return the row after for each row before, of the others."""
        keep, row_count = [row for row, length in enumerate(self.lengths) if length], len(self.lengths)
        if row_count <= self.least_rows:
            return {row: row for row in keep}
        idle = [0] * (self.least_rows - len(keep))
        self.lengths = [self.lengths[row] for row in keep] + idle
        self._arrange(keep, row_count)
        return {before: after for after, before in enumerate(keep)}

    def _arrange(self, keep: list[int], row_count: int) -> None:
        """Make the places fit `lengths`: `keep` of the `row_count` rows come first, others are empty.

        Positions are added when they are needed, and given up when half of them would do.
        """
        longest, capacity = max(self.lengths, default=0), self.capacity
        # Grow at once, but shrink only to a half or less: a length that goes up and down around a multiple of `_STEP`
        # must not copy all layers at every step.
        if longest > capacity or longest <= capacity // 2:
            capacity = -(-longest // _STEP) * _STEP
        if capacity == self.capacity and keep == list(range(row_count)) and len(self.lengths) == row_count:
            return
        index = torch.tensor(keep, dtype=torch.long, device=self.device)
        for layer in self._layers:
            layer.arrange(index, len(self.lengths), capacity)
        self.capacity = capacity
