"""Parses the Dockerfile and the compose file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "containers"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"
SETTINGS = {"COMPOSE_PROFILES": "cpu", "POSTGRES_PASSWORD": "from-the-settings"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions (word, rest) of each stage of the Dockerfile, lines joined, comments removed."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    instructions: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if not line:
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
        instructions.setdefault(name, []).append((word, rest))
    return instructions


def linked_folders() -> set[str]:
    """Return the project's folders that are links into the volume."""
    links = [rest for word, rest in stages()["rollmill"] if word == "RUN" and "ln --symbolic" in rest]
    return set(re.findall(r"for folder in ([\w ]+);", links[0])[0].split())


def services(settings: dict[str, str] = SETTINGS) -> dict[str, dict[str, Any]]:
    """Return the services with settings substituted. Raises `KeyError` for a missing required one."""

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return settings[name] if default is None else settings.get(name, default)

    pattern = r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}"
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(re.sub(pattern, value, COMPOSE.read_text()))["services"]
    return loaded
