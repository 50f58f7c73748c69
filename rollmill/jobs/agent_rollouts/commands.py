"""Command line of agent rollouts: `generate_multi` and `generate_single`."""

from __future__ import annotations

from collections.abc import Sequence

from rollmill.config.command_line import parse_command
from rollmill.inference.api_key import move_key_to_environment
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts, GenerateMulti, GenerateSingle

COMMANDS: dict[str, type[AgentRollouts]] = {"generate_multi": GenerateMulti, "generate_single": GenerateSingle}


def parse(argv: Sequence[str], *, description: str, examples: str) -> AgentRollouts:
    """Parse the parameters of the command that the first argument names; see `parse_command`."""
    parameters = parse_command(
        COMMANDS, move_key_to_environment(argv), prog="agent_rollouts", description=description, examples=examples
    )
    assert isinstance(parameters, AgentRollouts)
    return parameters
