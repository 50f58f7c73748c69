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
from rollmill.inference.api_key import move_key_to_environment
from rollmill.jobs.episodes.config_file import merge_overlay, read_overlay
from rollmill.jobs.episodes.override_keys import ROOTS, ParameterOverlay
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.terminal.program import program_name

_CONFIGURATION = "Configuration (flags win over overrides, these over the file)"
_PROG = "collect_episodes"
_SHOWN = 6


class EpisodesCommand(CollectEpisodes):
    """Flags of the command line beside the parameters."""

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
    ignored: list[str] = []

    def settle(environment: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
        overlay = _overlay(flags)
        ignored.extend(overlay.ignored)
        return merge_overlay(overlay, environment, flags)

    parsed = parse_command_line(
        EpisodesCommand,
        _add_override_flag(move_key_to_environment(argv)),
        prog=_PROG,
        description=description,
        examples=examples,
        settle=settle,
    )
    if ignored:
        sys.stderr.write(
            f"{program_name(_PROG)}: ignored settings of reinforcement learning: {_format_names(ignored)}\n"
        )
    return CollectEpisodes.model_validate(parsed.model_dump(include=set(CollectEpisodes.model_fields)))


def _overlay(flags: Mapping[str, Any]) -> ParameterOverlay:
    path, name = flags.get("config"), flags.get("config_name")
    if path is not None and name is not None:
        raise InputError("give --config or --config_name, not both")
    if name is not None:
        path = str(Path(flags.get("config_path", ".")) / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"))
    return read_overlay(None if path is None else read_settings_file(path), flags.get("override", []), typed=flags)


def _add_override_flag(argv: Sequence[str]) -> list[str]:
    """Return the arguments with positional overrides behind `--override`, at the end.

    A positional override has `=` and is not the value of a flag; behind a flag that takes many values, it begins with a
    known section and a dot.
    """
    others: list[str] = []
    overrides: list[str] = []
    expects = "none"
    for argument in argv:
        if argument.startswith("--"):
            expects = _value_count(argument)
        elif expects == "one":
            expects = "none"
        elif _is_override(argument, among_values=expects == "many"):
            overrides.append(argument)
            continue
        others.append(argument)
    return [*others, "--override", *overrides] if overrides else others


def _value_count(argument: str) -> str:
    """Return the number of values that follow a flag: `none`, `one` or `many`."""
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


def _format_names(names: Sequence[str]) -> str:
    """Return the first names, each to its third part, and the number of the others."""
    short = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in names))
    return ", ".join(short[:_SHOWN]) + (f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else "")
