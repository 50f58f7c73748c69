"""What a model server's log says of its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rollmill.errors import ServingError

_SEE_ABOVE = "See root cause above"
_TELLING = re.compile(r"Error|: (?:fatal )?error: ")
_MESSAGE = re.compile(r"Error: \S|: (?:fatal )?error: \S")
"""An error and what it says, not a line of code that a traceback quotes."""
_FITTING = re.compile(r"estimated maximum model length is (\d+)")
_REDUCED = re.compile(r"Auto-fit max_model_len: reduced from (\d+) to (\d+)")
_LONGEST = 100_000
_MOST = 300
"""Characters of a message that are shown, from its beginning on: vLLM says first what is wrong, then what to read."""


def _shorter_context(line: str) -> str:
    fitting = _FITTING.search(line)
    length = f"--max-model-len {fitting[1]}" if fitting else "--max-model-len auto"
    return (
        f'out of memory: give a shorter context (--vllm_args "{length}") or more memory (--gpu-memory-utilization 0.95'
        "; on a CPU VLLM_CPU_KVCACHE_SPACE, in GiB), or serve a smaller model"
    )


def _no_cache(_: str) -> str:
    return (
        'out of memory: the weights leave no room: give more memory (--vllm_args "--gpu-memory-utilization 0.95"; on a '
        "CPU VLLM_CPU_KVCACHE_SPACE, in GiB) or more GPUs (--tensor-parallel-size), or serve a smaller model"
    )


def _held_memory(_: str) -> str:
    return (
        "out of memory: lower --gpu-memory-utilization in --vllm_args, or end what else holds the device's (nvidia-smi "
        "shows it)"
    )


def _less_memory(_: str) -> str:
    return (
        "out of memory: lower --gpu-memory-utilization or --max-num-seqs in --vllm_args, free the device, or serve a "
        "smaller model"
    )


def _unusable_gpu(_: str) -> str:
    return "vLLM cannot use the GPU: see what nvidia-smi says, and whether its driver is one that this vLLM runs with"


def _no_compiler(_: str) -> str:
    return (
        "vLLM compiles for this GPU: install g++ and python3-dev, and for FlashInfer CUDA's toolkit of the release of "
        "vLLM's torch, with its folder in CUDA_HOME"
    )


_ADVICE: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"To serve at least one request with the models?'?s? max seq len"), _shorter_context),
    (re.compile(r"No available memory for the cache blocks|Cannot auto-fit max_model_len"), _no_cache),
    (re.compile(r"Free memory on device .{0,300} is less than"), _held_memory),
    (re.compile(r"out of memory|OutOfMemory", re.IGNORECASE), _less_memory),
    (
        re.compile(
            r"NVIDIA driver on your system is too old|No CUDA GPUs are available|Failed to infer device type"
            r"|Found no NVIDIA driver|CUDA driver version is insufficient|no kernel image is available"
        ),
        _unusable_gpu,
    ),
    (
        re.compile(r"Could not find nvcc|nvcc.{0,100}not found|Python\.h: No such file|Failed to find C compiler"),
        _no_compiler,
    ),
)
"""Signs in a line, and what to do about it. vLLM 0.32's own words, and torch's."""


class ServerLog:
    """A log from where it ended when this was made: what the server that is started now writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0

    def last_lines(self, count: int = 25) -> str:
        """Return the last lines that it has."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(max(self._start, self.path.stat().st_size - _LONGEST))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])

    def reduced_length(self) -> tuple[int, int] | None:
        """Return the model's context and the shorter one that fits into memory, where vLLM says that it took that."""
        match = _REDUCED.search(self.last_lines(2000))
        return (int(match[1]), int(match[2])) if match else None

    def death(self, code: int | None, when: str) -> ServingError:
        """Return the error for a server that ended with a code `when` it should not have.

        It has the most telling line, from where its message begins, and advice where the line is a known one.
        """
        lines = [line for line in self.last_lines(400).splitlines() if _TELLING.search(line)]
        messages = [line for line in lines if _MESSAGE.search(line)]
        telling = [line for line in messages if _SEE_ABOVE not in line] or messages or lines
        cause, advice = _known_cause(lines) or (telling[-1] if telling else "", "")
        why = f": {_message(cause)}" if cause else ""
        advice = f"; {advice}" if advice else ""
        message = f"the server ended with code {code} {when}{why}{advice} (log: {self.path})"
        return ServingError(message, details=self.last_lines())


def _known_cause(lines: list[str]) -> tuple[str, str] | None:
    """Return the last line of the most exact kind that there is advice for, and the advice."""
    for sign, advice in _ADVICE:
        matches = [line for line in lines if sign.search(line)]
        if matches:
            return matches[-1], advice(matches[-1])
    return None


def _message(line: str) -> str:
    """Return what a line says, without the log's own words in front of it."""
    begins = _MESSAGE.search(line)
    first = line.rfind(" ", 0, begins.start()) + 1 if begins else 0  # the name before "Error", or the file's
    message = line[first:].strip()
    return message if len(message) <= _MOST else f"{message[:_MOST].rstrip()}..."
