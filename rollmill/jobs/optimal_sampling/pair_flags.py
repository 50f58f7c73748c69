"""Sets vLLM's flags on which the pair engine depends, and refuses the user's that would break it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rollmill.errors import InputError
from rollmill.inference.machine import flag_value

STEP_TOKENS = "--max-num-batched-tokens"
_MODEL_LENGTH = "--max-model-len"
_MOST_STEP_TOKENS = 16_384
"""Tokens of a step, unless two shorter contexts fit into fewer: vLLM reserves memory for a step's activations."""
_PARALLEL = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--data-parallel-size", "-dp"),
    ("--decode-context-parallel-size", "-dcp"),
    ("--prefill-context-parallel-size", "-pcp"),
)
_ONE_DEVICE = "the pair engine is on one device: leave it out; more GPUs sample more shards (--gpu_workers)"
_FIXED = {
    "--stream-interval": ("1", "the pair engine reads every token at its step"),
    "--long-prefill-token-threshold": ("0", "the pair engine reads both prompts of a sample in one step"),
}
"""Flags with the only value that keeps the rows of a pair in step, and the reason."""
_SPECULATIVE = ("--speculative-config", "-sc")
_THOUSANDS = {"": 1, "k": 1000, "K": 1024, "m": 1_000_000, "M": 1 << 20}
"""Suffixes of vLLM's numbers (`human_readable_int` in `vllm/engine/arg_utils.py`)."""


def check_flags(arguments: Sequence[str]) -> None:
    """Raise `InputError` for flags of the user with which two rows of one engine cannot be kept in step.

    vLLM's own parser knows abbreviations and files of flags, too: the engine checks their values again before it loads
    the models.
    """
    arguments = _split_short(arguments)
    for names in _PARALLEL:
        for name in names:
            if (value := flag_value(arguments, name)) not in (None, "1"):
                raise InputError(f"--vllm_args: {name} {value}: {_ONE_DEVICE}")
    for name, (expected, reason) in _FIXED.items():
        if (value := flag_value(arguments, name)) not in (None, expected):
            raise InputError(f"--vllm_args: {name} {value}: {reason}: leave it out")
    for name in _SPECULATIVE:
        if flag_value(arguments, name) is not None:
            raise InputError(f"--vllm_args: {name}: the pair engine draws one token a step: leave it out")


def pair_flags(
    arguments: Sequence[str], *, context: int | None, batch_size: int, user_arguments: Sequence[str]
) -> list[str]:
    """Return the flags that go behind all others, where they count.

    A step has room for both prompts of a sample: for two contexts, up to 16,384 tokens; more where the user asks for
    it. Raises `InputError` where the user asks for fewer.

    Args:
        arguments: All other arguments.
        context: The model's context in tokens; None where its configuration does not have it.
        batch_size: Samples at the same time; each has two rows.
        user_arguments: The user's part of the arguments.
    """
    length = number(flag_value(arguments, _MODEL_LENGTH)) or context
    tokens = _MOST_STEP_TOKENS if length is None else min(2 * length, _MOST_STEP_TOKENS)
    if context is not None and not _is_chunked(arguments):
        tokens = max(tokens, length or context)  # vLLM requires it where it never splits a prompt
    tokens = max(tokens, 2 * batch_size)
    user_value = flag_value(user_arguments, STEP_TOKENS)
    if user_value is not None:
        user_tokens = number(user_value)
        if user_tokens is None or user_tokens < tokens:
            raise InputError(
                f"--vllm_args: {STEP_TOKENS} {user_value}: the pair engine sets {tokens}, so that both prompts of a "
                "sample are read in one step: leave it out, or give more"
            )
        tokens = user_tokens
    return [STEP_TOKENS, str(tokens), *(part for name, (value, _) in _FIXED.items() for part in (name, value))]


def number(text: str | None) -> int | None:
    """Return a number of vLLM's command line, such as 4096, 16k or 16K; None for others, such as `auto`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text or "")
    return int(float(match[1]) * _THOUSANDS[match[2]]) if match else None


def _is_chunked(arguments: Sequence[str]) -> bool:
    """Return whether vLLM may split prompts over steps: its default, unless the last flag for it turns it off."""
    flags = [flag.replace("_", "-") for flag in arguments]
    last = [flag for flag in flags if flag in ("--enable-chunked-prefill", "--no-enable-chunked-prefill")]
    return not last or last[-1] == "--enable-chunked-prefill"


def _split_short(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with values apart from short flags: `-tp2` is `-tp 2`."""
    short = "|".join(name for names in _PARALLEL for name in names if not name.startswith("--"))
    parts: list[str] = []
    for argument in arguments:
        match = re.fullmatch(rf"({short})=?(\d+)", argument)
        parts += [match[1], match[2]] if match else [argument]
    return parts
