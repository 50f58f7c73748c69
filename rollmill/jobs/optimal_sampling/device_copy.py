"""Copies numbers of the host to a device without waiting for it. Imports torch only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: Sequence[float] | Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the numbers as a tensor on the device.

    A copy from ordinary memory makes the host wait for all that the device has been given to do; one from pinned
    memory is queued behind it.
    """
    tensor = torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
