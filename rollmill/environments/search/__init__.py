"""Search: one agent splits a question, one searches a corpus, one answers."""

from rollmill.environments.registry import EnvironmentEntry

ENTRY = EnvironmentEntry(
    "search_env",
    "environment:SearchEnvironment",
    "questions over a corpus, yours or the one that ships",
    success="the normalised answer is an accepted one",
)
