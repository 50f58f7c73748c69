"""Mathematics: one agent reasons, another one writes programs, and their answers have to agree."""

from rollmill.environments.registry import EnvironmentEntry

ENTRY = EnvironmentEntry(
    "math_env",
    "environment:MathEnvironment",
    "reasoning-gym, or any problems with answers",
    success="the agents agree, and the agreed answer is right",
)
