"""Imports mini-swe-agent without its side effects: a greeting, and a new folder in the home directory.

Its template rendering and action search are replaced by safe ones: it renders a file's templates unsandboxed, and
matches the file's regular expression without a time limit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from rollmill.agents.action_search import ActionSearch
from rollmill.agents.templates import AgentTemplate


@contextmanager
def _quiet() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ("MSWEA_SILENT_STARTUP", "MSWEA_GLOBAL_CONFIG_DIR")}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(MSWEA_SILENT_STARTUP="1", MSWEA_GLOBAL_CONFIG_DIR=scratch)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


with _quiet():
    from minisweagent.agents import default
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.exceptions import FormatError, InterruptAgentFlow, Submitted
    from minisweagent.models.utils import actions_text, actions_toolcall
    from minisweagent.models.utils.actions_text import format_observation_messages, parse_regex_actions
    from minisweagent.models.utils.actions_toolcall import (
        BASH_TOOL,
        format_toolcall_observation_messages,
        parse_toolcall_actions,
    )

for _module in (default, actions_text, actions_toolcall):
    setattr(_module, "Template", AgentTemplate)  # noqa: B010  # it is no attribute that a type checker knows
setattr(actions_text, "re", ActionSearch)  # noqa: B010

__all__ = [
    "BASH_TOOL",
    "DefaultAgent",
    "FormatError",
    "InterruptAgentFlow",
    "Submitted",
    "format_observation_messages",
    "format_toolcall_observation_messages",
    "parse_regex_actions",
    "parse_toolcall_actions",
]
