"""The command line of collecting episodes: flags, a file of settings, and dotted overrides."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollmill.config.command_line import parse_command_line
from rollmill.config.parameter import parameter
from rollmill.config.settings_file import read_settings_file
from rollmill.errors import InputError
from rollmill.inference.api_key import secret_out_of
from rollmill.jobs.episodes.config_file import laid_under, read_asked
from rollmill.jobs.episodes.override_keys import ROOTS, Asked
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.terminal.program import program_name

_CONFIGURATION = "Configuration (flags win over overrides, these over the file)"
_PROG = "collect_episodes"
_SHOWN = 6


class EpisodesCommand(CollectEpisodes):
    """What a command line says beyond the parameters."""

    config: str | None = parameter(
        None, _CONFIGURATION, "Configuration", "YAML file of settings, by the names of flags or by dotted names.",
        metavar="FILE.yaml",
    )  # fmt: skip
    config_path: str = parameter(".", _CONFIGURATION, "Folder", "Folder of --config_name.", metavar="DIR")
    config_name: str | None = parameter(
        None, _CONFIGURATION, "Name", "The same as --config DIR/NAME.yaml.", metavar="NAME"
    )
    override: list[str] = parameter(
        [], _CONFIGURATION, "Overrides", metavar="NAME=VALUE",
        description="Dotted names, also without the flag: training.sft_num_episodes=500 env.max_turns=3 "
        "training.sft_config.lora_r=32.",
    )  # fmt: skip


def parse(argv: Sequence[str], *, description: str, examples: str) -> CollectEpisodes:
    """Parse the parameters of one call; see `parse_command_line`.

    Flags win over overrides (`training.sft_num_episodes=500`, with Hydra's `+` or without), these over the file, and
    that over environment variables. `--api-key KEY` goes to `VLLM_API_KEY` of this process.
    """
    passed_over: list[str] = []

    def settle(environment: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
        overlay = _overlay(flags)
        passed_over.extend(overlay.passed_over)
        return laid_under(overlay, environment, flags)

    parsed = parse_command_line(
        EpisodesCommand, _spelled_out(secret_out_of(argv)), prog=_PROG, description=description, examples=examples,
        settle=settle,
    )  # fmt: skip
    if passed_over:
        sys.stderr.write(f"{program_name(_PROG)}: passed over, as of reinforcement learning: {_listed(passed_over)}\n")
    return CollectEpisodes.model_validate(parsed.model_dump(include=set(CollectEpisodes.model_fields)))


def _overlay(flags: Mapping[str, Any]) -> Asked:
    path, name = flags.get("config"), flags.get("config_name")
    if path is not None and name is not None:
        raise InputError("give --config or --config_name, not both")
    if name is not None:
        path = str(Path(flags.get("config_path", ".")) / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"))
    return read_asked(None if path is None else read_settings_file(path), flags.get("override", []), typed=flags)


def _spelled_out(argv: Sequence[str]) -> list[str]:
    """Move bare overrides behind `--override`, at the end of the arguments.

    Bare is what has `=` and is no flag's value; among the values of a flag that takes many, what begins with a known
    section and a dot.
    """
    others: list[str] = []
    overrides: list[str] = []
    takes = "none"
    for argument in argv:
        if argument.startswith("--"):
            takes = _takes(argument)
        elif takes == "one":
            takes = "none"
        elif _is_override(argument, among_values=takes == "many"):
            overrides.append(argument)
            continue
        others.append(argument)
    return [*others, "--override", *overrides] if overrides else others


def _takes(argument: str) -> str:
    """Return how many values follow a flag: `none`, `one` or `many`."""
    name, equals, _ = argument[2:].replace("-", "_").partition("=")
    field = EpisodesCommand.model_fields.get(name)
    if equals or field is None or field.annotation is bool:
        return "none"
    return "many" if field.annotation == list[str] else "one"


def _is_override(argument: str, *, among_values: bool) -> bool:
    name, equals, _ = argument.lstrip("+~").partition("=")
    if among_values and not argument.startswith(("+", "~")):
        return bool(equals) and "." in name and name.partition(".")[0] in ROOTS
    return bool(equals) or argument.startswith("~")


def _listed(names: Sequence[str]) -> str:
    short = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in names))
    return ", ".join(short[:_SHOWN]) + (f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else "")
