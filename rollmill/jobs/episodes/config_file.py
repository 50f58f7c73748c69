"""Reads settings from a file and from dotted overrides, and merges them with the flags of a call."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rollmill.config.settings_file import SettingsFile, refuse_code, refuse_server_options, shown
from rollmill.environments.registry import ENVIRONMENTS
from rollmill.errors import InputError
from rollmill.jobs.episodes.override_keys import ParameterOverlay, UnusableSettingError, flatten, is_ignored
from rollmill.jobs.episodes.override_values import policy_text, read_value
from rollmill.jobs.episodes.parameters import CollectEpisodes

Values = dict[str, Any]
"""Parameters by name."""

_INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
_LONGEST = 100_000
_LONGEST_IN_ALL = 300_000
_MOST_NESTED = 50


def read_overlay(file: SettingsFile | None, overrides: Sequence[str], typed: Collection[str] = ()) -> ParameterOverlay:
    """Return the settings of a file and of `NAME=VALUE` overrides; overrides win. `typed` are parameters set by flags.

    Raises `InputError`, with the line or the override, for a setting that is unknown or wrong by itself, and for one of
    the file that would run code and is not set by an override or a flag.
    """
    from_file, from_overrides = list(_in_file(file)), list(_in_overrides(overrides))
    settings = [*from_file, *from_overrides]
    values = {name: value for name, value, _ in settings}
    overlay = ParameterOverlay()
    locations: dict[str, str] = {}
    references = _References(values)
    for name, value, location in settings:
        if is_ignored(name):
            overlay.ignored.append(name)
            continue
        try:
            field = overlay.set(name, references.resolve(value, (name,)))
        except UnusableSettingError as error:
            raise InputError(f"{location}: {error}") from None
        if field is not None:
            locations[field] = location
    # The user has typed overrides and flags: only a file, which may come from others, must not name code to run.
    overridden = {location for _, _, location in from_overrides}
    _check_code(
        {name: location for name, location in locations.items() if location not in overridden and name not in typed},
        overlay,
    )
    _check(overlay, locations)
    return overlay


def merge_overlay(overlay: ParameterOverlay, environment: Mapping[str, Any], flags: Mapping[str, Any]) -> Values:
    """Merge parameters: flags win over the overlay, and that over the environment; lists of `KEY=VALUE` by their keys.

    Raises `InputError` for a policy without a model.
    """
    values = {**overlay.fields, **flags}
    pairs = {
        **overlay.pairs,
        "agent": overlay.agent_policies(),
        "policy": _policies(overlay, values, flags, environment),
    }
    for name, items in pairs.items():
        from_flags = list(flags.get(name, []))
        keys = {item.partition("=")[0] for item in from_flags}
        others = [f"{key}={text}" for key, text in items.items() if key not in keys]
        if others or from_flags:
            values[name] = others + from_flags
    return {**environment, **values}


def _policies(
    overlay: ParameterOverlay, values: Values, flags: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, str]:
    """Return the flag value of each policy.

    A policy named `model_name` that has a model and nothing else becomes `model_path` in `values`.

    Args:
        overlay: Settings of the file and of overrides.
        values: The parameters so far; `model_path` is changed.
        flags: Parameters set by flags.
        environment: Parameters set by environment variables.
    """
    specs = overlay.policies()
    default = str(values.get("model_name", CollectEpisodes.model_fields["model_name"].default))
    default_spec = specs.get(default)
    if default_spec is not None:
        # A policy of the file may have the default policy's name: then it is that policy, with options of its own.
        model = flags.get("model_path") or default_spec.get("model") or {**environment, **values}.get("model_path")
        specs = {default: default_spec | {"model": model}} | {
            name: spec for name, spec in specs.items() if name != default
        }
        values["model_path"] = None
        if default_spec.keys() <= {"model"}:
            values["model_path"] = model
            del specs[default]
    try:
        return {name: policy_text(name, spec) for name, spec in specs.items()}
    except ValueError as error:
        raise InputError(f"policy {error}: give its path, or leave it out") from None


def _in_file(file: SettingsFile | None) -> Iterator[tuple[str, Any, str]]:
    if file is not None:
        yield from ((name, value, file.location(name)) for name, value in flatten(file.settings))


def _in_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    for override in overrides:
        name, equals, text = override.lstrip("+").partition("=")
        if not equals or not name or name.startswith("~"):
            raise InputError(f"{override!r} is no override: give NAME=VALUE, as in training.sft_num_episodes=500")
        try:
            value = read_value(text)
        except ValueError as error:
            raise InputError(f"{override}: {error}") from None
        yield from ((key, value, override) for key, value in flatten({name: value}))


class _References:
    """Resolves `${name}` in a file and its overrides.

    The length of each result, and of all together, is bounded: references to references grow exponentially.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._known: Values = {}
        self._remaining = _LONGEST_IN_ALL

    def resolve(self, value: Any, names: tuple[str, ...]) -> Any:
        """Replace `${name}` in a value by that setting's value; `names` are the settings that refer to the value."""
        if not isinstance(value, str):
            return value
        length = 0

        def replace(match: re.Match[str]) -> str:
            nonlocal length
            text = str(self._look_up(match, names))
            length += len(text)
            if length > _LONGEST:
                raise UnusableSettingError(f"with its references it has more than {_LONGEST:,} characters")
            return text

        # A reference alone keeps the type of what it refers to; within a text it becomes text.
        reference = _INTERPOLATION.fullmatch(value)
        return self._look_up(reference, names) if reference else _INTERPOLATION.sub(replace, value)

    def _look_up(self, match: re.Match[str], names: tuple[str, ...]) -> Any:
        name = match[1].strip()
        if name not in self._values or name in names or len(names) > _MOST_NESTED:
            raise UnusableSettingError(f"{match[0]} names no setting that has a value")
        if name not in self._known:
            self._known[name] = self.resolve(self._values[name], (*names, name))
        value = self._known[name]
        self._remaining -= len(str(value))
        if self._remaining < 0:  # known values count, too: each is parsed again at every reference
            raise UnusableSettingError(f"all references ${{...}} have more than {_LONGEST_IN_ALL:,} characters")
        return value


def _check_code(locations: Mapping[str, str], overlay: ParameterOverlay) -> None:
    """Refuse settings of a file that would run code; `locations` has the parameters that the file sets."""
    if "env_name" in locations:
        refuse_code(locations["env_name"], "env_name", overlay.fields["env_name"], ENVIRONMENTS)
    if "vllm_args" in locations:
        refuse_server_options(locations["vllm_args"], overlay.fields["vllm_args"])


def _check(overlay: ParameterOverlay, locations: Mapping[str, str]) -> None:
    try:
        CollectEpisodes.model_validate(overlay.fields)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["loc"]:  # errors that concern several settings are checked later, together with the flags
                location = locations[str(detail["loc"][0])]
                message = detail["msg"].removeprefix("Value error, ")
                raise InputError(f"{location}: {shown(detail['input'])}: {message[:500]}") from None
