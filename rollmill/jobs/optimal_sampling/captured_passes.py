"""Repeats decoding passes, and draws of tokens, as CUDA graphs, which launch all kernels of one at once.

A decoding pass of a few rows takes a device less time than the host needs to launch its hundreds of kernels one by one
(`benchmarks.decoding_steps` counts them). A graph has the kernels and the addresses of their tensors: it is right as
long as the pass has the same shapes, reads its inputs from the same memory, and writes to the same KV cache.

Imports torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rollmill.jobs.training.advice import is_out_of_memory

_log = logging.getLogger(__name__)

SWITCH = "ROLLMILL_CUDA_GRAPHS"
"""Environment variable: 0 runs every pass kernel by kernel."""


class Replayable(Protocol):
    """A captured pass."""

    def replay(self) -> None:
        """Run the pass on what its inputs contain now."""
        ...


Capture = Callable[[Callable[[], Tensor]], tuple[Replayable, Tensor]]
"""Captures a call without running it; returns it with the tensor that its result is written to."""


class _CapturedPass(NamedTuple):
    graph: Replayable
    inputs: tuple[Tensor, ...]
    output: Tensor


class CapturedPasses:
    """The captured passes of one network, or one sampler's draws, by shape.

    A pass runs as it is the first time, and is captured the second.

    Where one cannot be captured, such as a mixture of experts whose kernels depend on the tokens, this and all later
    passes run as they are, and the log says so.
    """

    def __init__(self, capture: Capture, name: str) -> None:
        """Start without passes; `name` is what runs them, for the log."""
        self._capture: Capture | None = capture
        self._name = name
        self._captured: dict[Hashable, _CapturedPass] = {}
        self._seen: set[Hashable] = set()

    def clear(self) -> None:
        """Forget all passes: to be called when a tensor that they use is replaced."""
        self._captured.clear()
        self._seen.clear()

    def run(self, shape: Hashable, forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Return the result of `forward(*inputs)`, which the next call may overwrite.

        Args:
            shape: Equal for calls that run the same kernels on the same tensors, but for the inputs' contents.
            forward: Runs on the device without waiting for it; what it reads besides `inputs` stays where it is.
            inputs: Tensors on the device, of the same shapes and dtypes for an equal `shape`.
        """
        if self._capture is None:
            return forward(*inputs)
        if shape not in self._seen:
            # Libraries choose kernels and allocate workspaces in their first call, which cannot be captured.
            self._seen.add(shape)
            return forward(*inputs)
        if shape not in self._captured and not self._add(self._capture, shape, forward, inputs):
            return forward(*inputs)
        captured = self._captured[shape]
        for static, new in zip(captured.inputs, inputs, strict=True):
            static.copy_(new)
        captured.graph.replay()
        return captured.output

    def _add(
        self, capture: Capture, shape: Hashable, forward: Callable[..., Tensor], inputs: tuple[Tensor, ...]
    ) -> bool:
        """Capture a pass; return whether that was possible.

        Args:
            capture: Captures a call.
            shape: As in `run`.
            forward: As in `run`.
            inputs: As in `run`.
        """
        static = tuple(tensor.clone() for tensor in inputs)
        try:
            graph, output = capture(lambda: forward(*static))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise  # the batch is halved, and its passes are captured
            self._capture = None
            self.clear()
            reason = str(error).partition("\n")[0]
            _log.warning("passes of %s run kernel by kernel, since they cannot be captured: %s", self._name, reason)
            return False
        self._captured[shape] = _CapturedPass(graph, static, output)
        return True


def cuda_passes(device: torch.device, name: str) -> CapturedPasses | None:
    """Return an empty `CapturedPasses` for a GPU; None on another device, or where `SWITCH` is 0."""
    if device.type != "cuda" or os.environ.get(SWITCH) == "0":
        return None
    pool = torch.cuda.graph_pool_handle()

    def capture(forward: Callable[[], Tensor]) -> tuple[Replayable, Tensor]:
        graph = torch.cuda.CUDAGraph()
        # One pool for all: only one pass runs at a time, and its output is read before the next one. Other threads may
        # use the device meanwhile.
        with torch.cuda.device(device), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = forward()
        return graph, output

    return CapturedPasses(capture, name)
