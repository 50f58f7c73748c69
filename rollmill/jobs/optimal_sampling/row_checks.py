"""Decides when the host looks at a batch's rows: at once, or once per decoding step.

On a GPU every look makes the host wait until the device has computed all that was queued, and then leaves the device
without work. So a step is computed as if every row were an ordinary one, and the rows that are not are marked; the host
reads the marks together with the step's results, and computes a step with a marked row again, looking at once.

Imports torch and the standard library only.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class RowChecks(Protocol):
    """What a computation does where a row needs another path, or an error."""

    deferred: bool
    """Whether the host must not look: then loops have a fixed number of steps, and no row is left out of them."""

    def any(self, rows: Tensor) -> bool:
        """Return whether a row of the mask [n] needs the other path."""
        ...

    def refuse(self, bad: Tensor, reason: str, rows: Tensor | None = None) -> None:
        """Raise `ValueError` with the number of the first bad row, if there is one.

        `bad` is a mask, [n]; `rows` are the numbers of its rows in the batch, None where it has all of them.
        """
        ...


class ImmediateChecks:
    """Looks at once, and raises."""

    deferred = False

    def any(self, rows: Tensor) -> bool:
        """Return whether a row of the mask is set."""
        return bool(rows.any())

    def refuse(self, bad: Tensor, reason: str, rows: Tensor | None = None) -> None:
        """Raise `ValueError` with the number of the first bad row, if there is one; see `RowChecks`."""
        if bool(bad.any()):
            first = bad.nonzero()[0, 0]
            raise ValueError(f"row {int(first if rows is None else rows[first])}: {reason}")


class DeferredChecks:
    """Marks the rows and goes on: what is computed for a marked row is of no use."""

    deferred = True

    def __init__(self) -> None:
        self._masks: list[Tensor] = []

    def any(self, rows: Tensor) -> bool:
        """Mark the rows of the mask; return False, so that the ordinary path is taken."""
        self._masks.append(rows)
        return False

    def refuse(self, bad: Tensor, reason: str, rows: Tensor | None = None) -> None:
        """Mark the bad rows."""
        assert rows is None, f"{reason}: the path of some rows alone is not taken"
        self._masks.append(bad)

    def marked(self, like: Tensor) -> Tensor:
        """Return the mask of all marked rows, [n]; `like` [n] gives their number and device."""
        mask = torch.zeros_like(like, dtype=torch.bool)
        for each in self._masks:
            mask = mask | each
        return mask


IMMEDIATE = ImmediateChecks()
