"""The API key of model servers: taken from the command line into the environment, never stored as a parameter."""

from __future__ import annotations

import os
from collections.abc import Sequence

KEY_VARIABLE = "VLLM_API_KEY"
_KEY_FLAGS = ("--api-key", "--api_key")


def move_key_to_environment(argv: Sequence[str]) -> list[str]:
    """Return the arguments without `--api-key KEY`, which becomes `VLLM_API_KEY` of this process.

    Parameters are stored with a run and shown in Prefect's UI, so that a key must not be one.
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
