"""The key of model servers, which a command line may give but no parameter holds."""

from __future__ import annotations

import os
from collections.abc import Sequence

KEY_VARIABLE = "VLLM_API_KEY"
_KEY_FLAGS = ("--api-key", "--api_key")


def secret_out_of(argv: Sequence[str]) -> list[str]:
    """Return the arguments without `--api-key KEY`, which goes to `VLLM_API_KEY` of this process.

    A key is no parameter: parameters are stored, and shown to whoever sees the run.
    """
    remaining: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in _KEY_FLAGS:
            os.environ[KEY_VARIABLE] = value if equals else next(arguments, "")
        else:
            remaining.append(argument)
    return remaining
