"""The commands, by the names that users know."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rollmill.agent_rollouts.parameters import AgentRollouts, GenerateMulti, GenerateSingle
from rollmill.command_line import parse_command

COMMANDS: dict[str, type[AgentRollouts]] = {"generate_multi": GenerateMulti, "generate_single": GenerateSingle}
KEY_VARIABLE = "VLLM_API_KEY"
_KEY_FLAGS = ("--api-key", "--api_key")


def secret_out_of(argv: Sequence[str]) -> list[str]:
    """The arguments without `--api-key KEY`, which goes to `VLLM_API_KEY` of this process.

    A key is no parameter: parameters are stored, and shown to whoever sees the run.
    """
    left: list[str] = []
    given = iter(argv)
    for argument in given:
        flag, equals, value = argument.partition("=")
        if flag in _KEY_FLAGS:
            os.environ[KEY_VARIABLE] = value if equals else next(given, "")
        else:
            left.append(argument)
    return left


def parse(argv: Sequence[str], *, description: str, examples: str) -> AgentRollouts:
    """The parameters of the command that the first argument names; see `parse_command`."""
    given = parse_command(
        COMMANDS, secret_out_of(argv), prog="agent_rollouts", description=description, examples=examples
    )
    assert isinstance(given, AgentRollouts)
    return given
