"""Reads mini-swe-agent's YAML configuration unchanged: its `agent`, `environment` and `model` sections."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from pydantic import ValidationError

from rollmill.agents.action_search import ActionSearch
from rollmill.agents.config_keys import Section, drop_costs, drop_unused, from_version_1, request_fields, start_config
from rollmill.agents.settings import (
    OBSERVATION,
    TEMPLATES,
    TEXT_ERROR,
    TEXT_REGEX,
    TOOL_ERROR,
    V1_REGEX,
    AgentSettings,
    Mode,
)
from rollmill.agents.templates import AgentTemplate
from rollmill.errors import InputError
from rollmill.files.bounded_yaml import BadYamlError, read_yaml

log = logging.getLogger(__name__)

_SECTIONS = ("agent", "environment", "model")
_NAMES = {"timeout_s": "environment.timeout", "wall_time_limit_s": "agent.wall_time_limit_seconds"}
_SECTION_OF = {
    "cwd": "environment",
    "env": "environment",
    "model_name": "model",
    "action_regex": "model",
    "observation_template": "model",
    "format_error_template": "model",
}
_SAYS_V2_TEXT = "```mswea_bash_command"
_SAYS_V1_TEXT = re.compile(r"\b(one|single)\b[^.]{0,40}\b(code block|triple backticks)|EXACTLY ONE action", re.I)


def read_agent_config(config: str, *, mode: Mode | None = None) -> AgentSettings:
    """Read the settings from a file, or from a configuration that mini-swe-agent ships (`mini`, `mini_textbased`, ...).

    `mode` overrides the mode that is inferred from the file. Warns of every key that is renamed or ignored. Raises
    `InputError` for a file that is no such configuration, in one line.
    """
    path, packaged = _find(config)
    agent, environment, model = _sections(path)

    def warn(key: str, what: str) -> None:
        if not packaged:
            log.warning("%s: %s is %s", path.name, key, what)

    is_v1 = from_version_1(agent, model, warn) or environment.get("environment_class") == "docker_remote"
    drop_costs(agent, warn)
    starting = start_config(environment, warn)
    _check_agent_class(path, agent)
    for name, section in zip(_SECTIONS, (agent, environment, model), strict=True):
        drop_unused(name, section, warn)
    kwargs = model.pop("model_kwargs", None) or {}
    if not isinstance(kwargs, dict):
        raise InputError(f"{path}: model.model_kwargs is a {type(kwargs).__name__}: give keys and values")
    request = request_fields(kwargs, warn)
    resolved_mode = mode or _mode(agent, model, is_v1=is_v1)
    model.pop("model_class", None)
    fields = _defaults(resolved_mode, agent, model, is_v1=is_v1) | agent | environment | model | {"mode": resolved_mode}
    fields |= {"request": request, "start_config": starting, "origin": str(path)}
    for name, key in (("timeout", "timeout_s"), ("wall_time_limit_seconds", "wall_time_limit_s")):
        if name in fields:
            fields[key] = fields.pop(name)
    return _validated(path, fields)


def _find(config: str) -> tuple[Path, bool]:
    """Return the file's path, and whether it comes with mini-swe-agent."""
    path = Path(config).expanduser()
    if path.is_file():
        return path, False
    spec = importlib.util.find_spec("minisweagent")  # finds the package without importing it
    folders = [Path(location, "config") for location in (spec.submodule_search_locations if spec else None) or ()]
    known = {
        file.stem: file for folder in folders for file in (*folder.glob("*.yaml"), *folder.glob("benchmarks/*.yaml"))
    }
    named = known.get(config.removesuffix(".yaml"))
    if named is None:
        raise InputError(f"--config {config}: no such file, and none of {', '.join(sorted(known))}: give one of these")
    return named, True


def _sections(path: Path) -> list[Section]:
    try:
        content = read_yaml(path.read_bytes()).value
    except BadYamlError as error:
        where = f" line {error.line}" if error.line else ""
        raise InputError(f"{path}{where} is no YAML that is read: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no sections: it needs agent, environment and model")
    sections = []
    for name in _SECTIONS:
        section = content.pop(name, None) or {}
        if not isinstance(section, dict):
            raise InputError(f"{path}: {name} is a {type(section).__name__}: give keys and values")
        sections.append(dict(section))
    for name in content:
        log.warning("%s: %s is a section that is not used", path.name, name)
    return sections


def _check_agent_class(path: Path, agent: Section) -> None:
    agent_class = agent.pop("agent_class", "default")
    if str(agent_class).rsplit(".", 1)[-1] not in {"default", "interactive", "DefaultAgent", "InteractiveAgent"}:
        raise InputError(f"{path}: agent.agent_class is {agent_class}: give mini-swe-agent's default agent")


def _mode(agent: Section, model: Section, *, is_v1: bool) -> Mode:
    """Infer whether commands are in the text or in tool calls: from classes and keys, or else from the templates."""
    if is_v1 or "action_regex" in model or "textbased" in str(model.get("model_class")).lower():
        return "text"
    instructions = _instructions(agent, model)
    if _SAYS_V2_TEXT in instructions:
        return "text"
    return "text" if _SAYS_V1_TEXT.search(instructions) and "tool" not in instructions.lower() else "tools"


def _instructions(agent: Section, model: Section) -> str:
    """Join all templates that instruct the model how to answer."""
    templates = (agent.get("system_template"), agent.get("instance_template"), model.get("format_error_template"))
    return "\n".join(str(template) for template in templates)


def _defaults(mode: Mode, agent: Section, model: Section, *, is_v1: bool) -> dict[str, Any]:
    """Return mini-swe-agent's defaults; the regular expression matches the code blocks that the templates show.

    A file whose keys are of version 1 gets that version's defaults, whatever its templates call a block.

    Args:
        mode: Whether commands are in the text or in tool calls.
        agent: The section `agent` of the file.
        model: The section `model` of the file.
        is_v1: Whether the file has keys of version 1.
    """
    instructions = _instructions(agent, model)
    shows_v1 = is_v1 or "```bash" in instructions
    as_in_v1 = mode == "text" and shows_v1 and _SAYS_V2_TEXT not in instructions
    return {
        "action_regex": V1_REGEX if as_in_v1 else TEXT_REGEX,
        "observation_template": OBSERVATION,
        "format_error_template": TEXT_ERROR if mode == "text" else TOOL_ERROR,
    }


def _validated(path: Path, fields: dict[str, Any]) -> AgentSettings:
    try:
        settings = AgentSettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        name = str(first["loc"][0])
        key = _NAMES.get(name) or f"{_SECTION_OF.get(name, 'agent')}.{key}"
        shown_value = "" if first["type"] == "missing" else f" ({first['input']!r:.80})"
        raise InputError(f"{path}: {key}{shown_value}: {first['msg']}") from None
    for name, key in TEMPLATES.items():
        try:
            AgentTemplate(getattr(settings, name))
        except TemplateSyntaxError as error:
            raise InputError(f"{path}: {key}, line {error.lineno} of it: {error.message}") from None
    try:
        groups = ActionSearch.groups(settings.action_regex)
    except ValueError as error:
        raise InputError(f"{path}: model.action_regex is no regular expression: {error}") from None
    if groups > 1:
        raise InputError(f"{path}: model.action_regex has {groups} groups: the command is to be the only one")
    return settings
