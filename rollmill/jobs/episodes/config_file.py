"""Settings from a file and from dotted overrides, laid under the flags of a call."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rollmill.config.settings_file import SettingsFile, refuse_code, refuse_server_options, shown
from rollmill.environments.registry import BUILT_IN
from rollmill.errors import InputError
from rollmill.jobs.episodes.override_keys import Asked, UnusableSettingError, flat, passes_over
from rollmill.jobs.episodes.override_values import policy_text, read_value
from rollmill.jobs.episodes.parameters import CollectEpisodes

Values = dict[str, Any]
"""Parameters by name."""

_INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
_LONGEST = 100_000
_LONGEST_IN_ALL = 300_000
_MOST_NESTED = 50


def read_asked(file: SettingsFile | None, overrides: Sequence[str], typed: Collection[str] = ()) -> Asked:
    """What a file and `NAME=VALUE` overrides ask for; overrides win. `typed`: the parameters that flags give.

    Raises `InputError`, naming the line or the override, for a setting that is unknown or wrong by itself, and for one
    of the file that would run code and is given nowhere else.
    """
    filed, overriding = list(_in_file(file)), list(_in_overrides(overrides))
    given = [*filed, *overriding]
    values = {name: value for name, value, _ in given}
    asked = Asked()
    places: dict[str, str] = {}
    references = _References(values)
    for name, value, place in given:
        if passes_over(name):
            asked.passed_over.append(name)
            continue
        try:
            field = asked.set(name, references.filled(value, (name,)))
        except UnusableSettingError as error:
            raise InputError(f"{place}: {error}") from None
        if field is not None:
            places[field] = place
    own = {place for _, _, place in overriding}
    _check_code({name: place for name, place in places.items() if place not in own and name not in typed}, asked)
    _check(asked, places)
    return asked


def laid_under(asked: Asked, environment: Mapping[str, Any], flags: Mapping[str, Any]) -> Values:
    """Parameters: flags over what is asked for over the environment; `KEY=VALUE` items one by one.

    Raises `InputError` for a policy without a model.
    """
    values = {**asked.fields, **flags}
    pairs = {**asked.pairs, "agent": asked.cast(), "policy": _policies(asked, values, flags, environment)}
    for name, items in pairs.items():
        own = list(flags.get(name, []))
        keys = {item.partition("=")[0] for item in own}
        below = [f"{key}={text}" for key, text in items.items() if key not in keys]
        if below or own:
            values[name] = below + own
    return {**environment, **values}


def _policies(asked: Asked, values: Values, flags: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """The text of each policy; in `values`, `model_path` for one that has the name of its policy and only a model."""
    said = asked.policies()
    default = str(values.get("model_name", CollectEpisodes.model_fields["model_name"].default))
    own = said.get(default)
    if own is not None:
        model = flags.get("model_path") or own.get("model") or {**environment, **values}.get("model_path")
        said = {default: own | {"model": model}} | {name: one for name, one in said.items() if name != default}
        values["model_path"] = None
        if own.keys() <= {"model"}:
            values["model_path"] = model
            del said[default]
    try:
        return {name: policy_text(name, one) for name, one in said.items()}
    except ValueError as error:
        raise InputError(f"policy {error}: give its path, or leave it out") from None


def _in_file(file: SettingsFile | None) -> Iterator[tuple[str, Any, str]]:
    if file is not None:
        yield from ((name, value, file.place(name)) for name, value in flat(file.settings))


def _in_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    for override in overrides:
        name, equals, text = override.lstrip("+").partition("=")
        if not equals or not name or name.startswith("~"):
            raise InputError(f"{override!r} is no override: give NAME=VALUE, as in training.sft_num_episodes=500")
        try:
            value = read_value(text)
        except ValueError as error:
            raise InputError(f"{override}: {error}") from None
        yield from ((one, value, override) for one, value in flat({name: value}))


class _References:
    """What `${name}` stands for in a file and its overrides, within a length for each text and for all of them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._known: Values = {}
        self._left = _LONGEST_IN_ALL

    def filled(self, value: Any, names: tuple[str, ...]) -> Any:
        """The value with `${name}` replaced by that setting's; `names`: those that it stands in."""
        if not isinstance(value, str):
            return value
        length = 0

        def replaced(match: re.Match[str]) -> str:
            nonlocal length
            text = str(self._named(match, names))
            length += len(text)
            if length > _LONGEST:
                raise UnusableSettingError(f"with what it names it has more than {_LONGEST:,} characters")
            return text

        whole = _INTERPOLATION.fullmatch(value)
        return self._named(whole, names) if whole else _INTERPOLATION.sub(replaced, value)

    def _named(self, match: re.Match[str], names: tuple[str, ...]) -> Any:
        name = match[1].strip()
        if name not in self._values or name in names or len(names) > _MOST_NESTED:
            raise UnusableSettingError(f"{match[0]} names no setting that has a value")
        if name not in self._known:
            self._known[name] = self.filled(self._values[name], (*names, name))
        found = self._known[name]
        self._left -= len(str(found))
        if self._left < 0:  # each is parsed again where it stands
            raise UnusableSettingError(f"all that is named by ${{...}} has more than {_LONGEST_IN_ALL:,} characters")
        return found


def _check_code(places: Mapping[str, str], asked: Asked) -> None:
    """Refuses what a file says of code to run; `places`: the parameters that it decides."""
    if "env_name" in places:
        refuse_code(places["env_name"], "env_name", asked.fields["env_name"], BUILT_IN)
    if "vllm_args" in places:
        refuse_server_options(places["vllm_args"], asked.fields["vllm_args"])


def _check(asked: Asked, places: Mapping[str, str]) -> None:
    try:
        CollectEpisodes.model_validate(asked.fields)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["loc"]:  # what concerns several settings is judged with the flags
                place = places[str(detail["loc"][0])]
                said = detail["msg"].removeprefix("Value error, ")
                raise InputError(f"{place}: {shown(detail['input'])}: {said[:500]}") from None
