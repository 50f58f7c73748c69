"""What the README names is there."""

from __future__ import annotations

import re

from rollmill.environments.registry import ENVIRONMENTS
from rollmill.verifiers.registry import VERIFIERS
from tests.documentation.pages import ROOT

README = (ROOT / "README.md").read_text()


def test_verifiers_of_the_readme_exist() -> None:
    row = re.search(r"^\| `--verifier` \| `(\w+)` \| (.*?), or ", README, re.MULTILINE)
    assert row
    assert {row[1], *re.findall(r"`(\w+)`", row[2])} <= set(VERIFIERS)


def test_the_table_of_environments_is_the_registry() -> None:
    """Name, description and success as declared, and the agents by name in turn order, perhaps with more words."""
    table = README.partition("| environment | agents | success |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    shown = [(what, tuple(re.findall(r"`(\w+)`", agents)), success) for what, agents, success in rows]
    declared = [
        (f"`{entry.name}`: {entry.description}", kind.agent_names(kind.Settings()), entry.success)
        for entry in ENVIRONMENTS.values()
        if entry.built_in
        for kind in (ENVIRONMENTS.load(entry.name),)
    ]
    assert shown == declared
