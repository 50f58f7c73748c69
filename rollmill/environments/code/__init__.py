"""Programming problems: code and tests that are written against each other, judged by tests that neither sees."""

from rollmill.environments.registry import EnvironmentEntry

ENTRY = EnvironmentEntry(
    "code_env",
    "environment:CodeEnvironment",
    "programs for HumanEval, or any prompts with tests",
    success="the ground-truth tests pass, which no agent sees",
)
