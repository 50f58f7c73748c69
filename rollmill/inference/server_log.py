"""Diagnose a model server's death from its log: the most informative line, and a remedy for known errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rollmill.errors import ServingError

_SEE_ABOVE = "See root cause above"
_ERROR_LINE = re.compile(r"Error|: (?:fatal )?error: ")
_MESSAGE = re.compile(r"Error: \S|: (?:fatal )?error: \S")
"""An error with its message, which excludes source code lines that a traceback quotes."""
_FITTING = re.compile(r"estimated maximum model length is (\d+)")
_REDUCED = re.compile(r"Auto-fit max_model_len: reduced from (\d+) to (\d+)")
_LONGEST = 100_000
_MOST = 300
"""Characters shown of a message: vLLM's begin with the error and end with links to documentation."""


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
        "out of memory: lower --gpu-memory-utilization in --vllm_args, or end the other processes that use the GPU's "
        "memory (nvidia-smi shows them)"
    )


def _less_memory(_: str) -> str:
    return (
        "out of memory: lower --gpu-memory-utilization or --max-num-seqs in --vllm_args, free the device, or serve a "
        "smaller model"
    )


def _unusable_gpu(_: str) -> str:
    return "vLLM cannot use the GPU: check the output of nvidia-smi, and whether this vLLM supports its driver"


def _no_compiler(_: str) -> str:
    return (
        "vLLM compiles kernels for this GPU: install g++ and python3-dev, and for FlashInfer the CUDA toolkit of the "
        "release of vLLM's torch, with its folder in CUDA_HOME"
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
"""Messages of vLLM 0.32 and torch, from specific to general, each with what to do about it."""


class ServerLog:
    """The part of a log file that is written after this object was created, by the server that is started next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0

    def last_lines(self, count: int = 25) -> str:
        """Return the last lines."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(max(self._start, self.path.stat().st_size - _LONGEST))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])

    def reduced_length(self) -> tuple[int, int] | None:
        """Return the model's context length and the reduced one, in tokens, if vLLM reduced it to fit into memory."""
        match = _REDUCED.search(self.last_lines(2000))
        return (int(match[1]), int(match[2])) if match else None

    def death(self, code: int | None, when: str) -> ServingError:
        """Return the error for a server that exited with a code, `when` being a phrase such as `while starting`.

        It contains the message of the most informative line, and advice for known errors.
        """
        lines = [line for line in self.last_lines(400).splitlines() if _ERROR_LINE.search(line)]
        messages = [line for line in lines if _MESSAGE.search(line)]
        candidates = [line for line in messages if _SEE_ABOVE not in line] or messages or lines
        cause, advice = _known_cause(lines) or (candidates[-1] if candidates else "", "")
        reason = f": {_message(cause)}" if cause else ""
        advice = f"; {advice}" if advice else ""
        message = f"the server ended with code {code} {when}{reason}{advice} (log: {self.path})"
        return ServingError(message, details=self.last_lines())


def _known_cause(lines: list[str]) -> tuple[str, str] | None:
    """Return the last line of the most specific known error, with its advice; None where no line is known."""
    for sign, advice in _ADVICE:
        matches = [line for line in lines if sign.search(line)]
        if matches:
            return matches[-1], advice(matches[-1])
    return None


def _message(line: str) -> str:
    """Return the error message in a line, without the prefix of the log format."""
    match = _MESSAGE.search(line)
    first = line.rfind(" ", 0, match.start()) + 1 if match else 0  # from the exception's name, or a file's
    message = line[first:].strip()
    return message if len(message) <= _MOST else f"{message[:_MOST].rstrip()}..."
