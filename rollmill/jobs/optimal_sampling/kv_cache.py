"""KV cache for continuous batching: each row has its own length, and is reused by another sequence when it ends.

Rows are filled from position 0; what is behind a row's length is stale, and the attention mask hides it. A new sequence
is prefilled in a pass of its own, and written into a free row; no other row moves. Every decoding pass runs over all
rows, so that rows which stay free are removed (`compact`).

A row's numbers must not depend on the other rows, to the last bit. So a pass attends to a multiple of 64 positions:
kernels then add the same numbers in the same order, and zeros behind them. And it has at least `least_rows` rows, idle
ones if need be: which kernel runs depends on the number of rows.

Imports torch and transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from rollmill.jobs.optimal_sampling.device_copy import upload

_STEP = 64
"""Rows have capacity for, and attend to, a multiple of this many positions: so they are rarely copied to grow."""


class _RowCacheLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, [rows, heads, capacity, dimension]."""

    def __init__(self, cache: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the states: the first pass shows their shape."""
        cache = self._cache
        self.keys, self.values = (
            new.new_zeros((len(cache.lengths), new.shape[1], cache.capacity, new.shape[3]))
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write each row's new states at its own position; return the keys and values that the pass attends to.

        Args:
            key_states: New keys, [rows of this pass, heads, tokens, dimension].
            value_states: New values, of the same shape.
            *args: Not used; transformers passes it.
            **kwargs: Not used; transformers passes it.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        cache = self._cache
        if cache.prefilled is not None:  # a prefill attends to its own tokens alone
            # Padding behind a shorter prompt is written, too: the mask hides it, and the next tokens overwrite it.
            length = key_states.shape[2]
            self.keys[cache.prefilled, :, :length] = key_states
            self.values[cache.prefilled, :, :length] = value_states
            return key_states, value_states
        # One token for each row: row i's goes to its own position, behind its earlier tokens.
        self.keys[cache.row_indices, :, cache.positions] = key_states[:, :, 0]
        self.values[cache.row_indices, :, cache.positions] = value_states[:, :, 0]
        return self.keys[:, :, : cache.width], self.values[:, :, : cache.width]

    def arrange(self, keep: Tensor, rows: int, capacity: int) -> None:
        """Resize to `rows` rows of `capacity` positions: the rows of the indices `keep`, then empty ones."""
        if self.is_initialized:
            self.keys = _copy_rows(self.keys, keep, rows, capacity)
            self.values = _copy_rows(self.values, keep, rows, capacity)

    def get_seq_length(self) -> int:
        """Return the index in the mask of the pass's first token."""
        return 0 if self._cache.prefilled is not None else self._cache.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of positions that the pass attends to, and their offset."""
        return (query_length if self._cache.prefilled is not None else self._cache.width), 0

    def get_max_length(self) -> int:
        """Return -1: there is no maximum."""
        return -1


def _copy_rows(old: Tensor, keep: Tensor, rows: int, capacity: int) -> Tensor:
    """Return a tensor with some rows of another, then rows of zeros.

    Args:
        old: [rows before, heads, capacity before, dimension].
        keep: Indices of the rows to copy, in their new order.
        rows: Number of rows.
        capacity: Positions of each row; the rest of a longer row is cut.
    """
    # Zeros, not `new_empty`: hidden positions have attention weight 0, and 0 * NaN is NaN.
    new = old.new_zeros((rows, old.shape[1], capacity, old.shape[3]))
    kept = min(old.shape[2], capacity)
    new[: len(keep), :, :kept] = old[keep, :, :kept]
    return new


class RowCache(Cache):
    """A transformers `Cache` of rows with different lengths, for models whose layers all attend to the whole row.

    Each forward pass is announced: `fill` before a prefill pass; `extend`, then `attend`, before a pass of one token
    for every row.
    Memory: rows x the longest row's length, rounded up to a multiple of 64.
    """

    def __init__(self, layers: int, device: torch.device, *, least_rows: int = 0, window: int | None = None) -> None:
        """Create a cache without rows.

        Args:
            layers: Number of layers of the model.
            device: Device of the states.
            least_rows: Rows of a decoding pass, at least; some may be idle.
            window: Most positions that a layer attends to; None for all. The caller makes no row longer.
        """
        self.device = device
        self.least_rows, self._window = least_rows, window
        self.lengths: list[int] = []
        """Tokens of each row; 0 where the row is free."""
        self.capacity = 0
        """Positions of each row."""
        self.arrangement = 0
        """Number of times that the layers' tensors were replaced."""
        self.prefilled: Tensor | None = None
        """Indices of the rows that this pass prefills; None for a decoding pass."""
        self.width = 1
        """Positions that a decoding pass attends to."""
        self.positions = self.row_indices = torch.empty(0, dtype=torch.long, device=device)
        self._layers = [_RowCacheLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self._layers))

    def fill(self, lengths: Sequence[int]) -> list[int]:
        """Return the rows for new sequences with prompts of these lengths, above 0: free rows first, then new ones."""
        row_count = len(self.lengths)
        # Free rows first: as long as they suffice, no row is added to any layer.
        rows = [row for row, length in enumerate(self.lengths) if not length][: len(lengths)]
        rows += range(row_count, row_count + len(lengths) - len(rows))
        self.lengths += [0] * (max([row_count, *(row + 1 for row in rows)]) - row_count)
        for row, length in zip(rows, lengths, strict=True):
            self.lengths[row] = length
        self._arrange(list(range(row_count)), row_count)
        self.prefilled = upload(rows, torch.long, self.device)
        return rows

    def extend(self) -> Tensor:
        """Lengthen every row by one token; return its position in each row: [rows].

        Free rows stay without tokens.
        """
        idle = [0] * (self.least_rows - len(self.lengths))
        before = len(self.lengths)
        positions = self.lengths + idle
        self.lengths = [length + 1 if length else 0 for length in positions]
        longest = max(self.lengths)
        self.width = min(-(-longest // _STEP) * _STEP, self._window or sys.maxsize)
        self._arrange(list(range(before)), before)
        self.prefilled = None
        return upload(positions, torch.long, self.device)

    def attend(self, positions: Tensor) -> Tensor:
        """Prepare a pass of one token for every row at these positions; return its attention mask [rows, width]."""
        self.positions = positions
        # A free row attends to position 0, which it writes itself: softmax over nothing would be NaN.
        return torch.arange(self.width, device=self.device) <= positions[:, None]

    def release(self, rows: Sequence[int]) -> None:
        """Free the rows of sequences that have ended."""
        for row in rows:
            self.lengths[row] = 0

    def compact(self) -> dict[int, int]:
        """Remove free rows beyond `least_rows`; return the new index of each row in use, by its old one."""
        keep, row_count = [row for row, length in enumerate(self.lengths) if length], len(self.lengths)
        if row_count <= self.least_rows:
            return {row: row for row in keep}
        idle = [0] * (self.least_rows - len(keep))
        self.lengths = [self.lengths[row] for row in keep] + idle
        self._arrange(keep, row_count)
        return {before: after for after, before in enumerate(keep)}

    def _arrange(self, keep: list[int], row_count: int) -> None:
        """Resize all layers for `lengths`: the rows `keep`, of `row_count` rows so far, then empty rows.

        Capacity grows when it is needed, and shrinks when half of it suffices.
        """
        longest, capacity = max(self.lengths, default=0), self.capacity
        # Grow at once, but shrink only to a half or less: a length that goes up and down around a multiple of `_STEP`
        # must not copy all layers at every step.
        if longest > capacity or longest <= capacity // 2:
            capacity = -(-longest // _STEP) * _STEP
        if capacity == self.capacity and keep == list(range(row_count)) and len(self.lengths) == row_count:
            return
        self.arrangement += 1
        self.row_indices = torch.arange(len(self.lengths), device=self.device)
        index = upload(keep, torch.long, self.device)
        for layer in self._layers:
            layer.arrange(index, len(self.lengths), capacity)
        self.capacity = capacity
