"""Parses the values of flags of episodes: `KEY=VALUE` settings, and policies."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rollmill.config.names import LONGEST_NAME
from rollmill.generation.sampling import OPTIONAL_FIELDS, Sampling
from rollmill.inference.parameters import check_urls
from rollmill.terminal.escapes import hidden_sign, visible_line

DEMONSTRATIONS = ("oracle", "random")
"""Policies without a model: the agents' own methods of these names."""
_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)*")
_KEY = re.compile(r"\w+")
POLICY_KEYS = ("adapter", "base_url", "temperature", "top_p", "max_tokens", *OPTIONAL_FIELDS)
"""Keys of the options that a policy's flag may have behind its model."""


class PolicySpec(NamedTuple):
    """A policy of the user."""

    name: str
    """Name in rows, and on a server that the run starts."""
    model: str
    """Directory, hub id, name on running servers, `oracle` or `random`."""
    sampling: Sampling
    adapter: str = ""
    """Directory of an adapter on the model; empty for none."""
    base_urls: tuple[str, ...] = ()
    """Addresses of running servers of this policy; empty where the run's own servers serve it."""
    overrides: frozenset[str] = frozenset()
    """Names of the sampling parameters that are set for this policy alone."""

    @property
    def demonstration(self) -> bool:
        """True if the policy is the agents' own demonstrations, and not a model."""
        return self.model in DEMONSTRATIONS


def as_pairs(value: Any) -> Any:
    """Return a mapping as a list of `KEY=VALUE` texts, and one text as a list; anything else as it is."""
    if isinstance(value, Mapping):
        return [f"{key}={as_text(item)}" for key, item in value.items()]
    return [value] if isinstance(value, str) else value


def as_policies(value: Any) -> Any:
    """Return a mapping from names to models, or to mappings with `model` and `POLICY_KEYS`, as a list of flag values.

    Anything else as `as_pairs`.
    """
    if not isinstance(value, Mapping):
        return as_pairs(value)
    return [f"{name}={policy_text(str(name), spec)}" for name, spec in value.items()]


def as_text(value: Any) -> str:
    """Return a text that `read_value` reads as this value."""
    if isinstance(value, str):
        try:
            is_unambiguous = read_value(value) == value
        except ValueError:
            is_unambiguous = False
        if is_unambiguous:
            return value
    return json.dumps(value, default=str)


def read_value(text: str) -> Any:
    """Parse a value as JSON, else as YAML; values of other types than JSON's (a date, say) stay text.

    Raises `ValueError` for text that is neither.
    """
    from rollmill.files.bounded_yaml import BadYamlError, read_yaml

    try:
        return json.loads(text, parse_constant=str)  # first: to YAML 1.1 `5e-5` is text
    except (ValueError, RecursionError):
        pass
    try:
        value = read_yaml(text).value
    except BadYamlError:
        raise ValueError(f"{text!r} is no YAML value: put it in quotes") from None
    if value is None and text.strip() not in ("", "~", "null", "Null", "NULL"):
        return text  # a comment
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else text


def read_pairs(items: Iterable[str], *, known: Collection[str] | None = None) -> dict[str, str]:
    """Return the texts of `KEY=VALUE` items by key. Raises `ValueError` for malformed, unknown and repeated items."""
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise ValueError(f"{item!r} is not KEY=VALUE")
        if known is not None and key not in known:
            raise ValueError(f"there is no {key!r}{suggest_name(key, known)}")
        if key in pairs:
            raise ValueError(f"{key!r} is given twice")
        pairs[key] = value
    return pairs


def read_settings(items: Iterable[str], *, known: Collection[str] | None = None) -> dict[str, Any]:
    """Return the values of `KEY=VALUE` items by key, parsed as YAML. Raises as `read_pairs` and `read_value` do."""
    return {key: read_value(value) for key, value in read_pairs(items, known=known).items()}


def split_policy(text: str) -> list[tuple[str, str]]:
    """Split `MODEL[,KEY=VALUE...]` into (key, value) of each part; the first has the key `model`."""
    model, *options = re.split(r",(?=\w+=)", text)
    pairs = (option.partition("=") for option in options)
    return [("model", expand_home(model)), *((key, value) for key, _, value in pairs)]


def read_policy(item: str, sampling: Sampling) -> PolicySpec:
    """Parse the policy of `NAME=MODEL[,KEY=VALUE...]`; `sampling` has the defaults. Raises `ValueError`."""
    name, _, text = item.partition("=")
    (_, model), *options = split_policy(text)
    if not model:
        raise ValueError(f"{item!r} is not NAME=MODEL")
    check_name(name)
    for key, _ in options:
        if key not in POLICY_KEYS:
            raise ValueError(f"{name}: there is no {key!r}{suggest_name(key, POLICY_KEYS)}")
        if key != "base_url" and [option for option, _ in options].count(key) > 1:
            raise ValueError(f"{name}: {key!r} is given twice")
    urls = check_urls([value for key, value in options if key == "base_url"])
    settings = {key: value for key, value in options if key != "base_url"}
    adapter = expand_home(settings.pop("adapter", ""))
    policy_sampling = _sampling(name, sampling, settings)
    spec = PolicySpec(name, model, policy_sampling, adapter, tuple(urls), overrides=frozenset(settings))
    if spec.demonstration and options:
        raise ValueError(f"{name}: {model} is no model: it takes no {options[0][0]}")
    if adapter and urls:
        raise ValueError(
            f"{name}: running servers decide what they serve: leave out adapter, and give the name under which they "
            "serve it as MODEL"
        )
    return spec


def expand_home(path: str) -> str:
    """Expand `~` in a path: behind `=` no shell does."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # `~name` of an unknown user
        return path


def check_name(name: str) -> str:
    """Return a policy's name. Raises `ValueError` for one that a server cannot use as a model's name."""
    shown = f"'{visible_line(name)}' cannot be a policy's name"
    if not _NAME.fullmatch(name) or hidden_sign(name):
        raise ValueError(f"{shown}: use letters, digits, '_', '-', '.' and '/'")
    if len(name.encode()) > LONGEST_NAME // 2 or ".." in name.split("/"):  # a log's name has the run's, too
        raise ValueError(f"{shown}: give one of at most {LONGEST_NAME // 2} bytes, no '..'")
    return name


def suggest_name(name: str, known: Collection[str]) -> str:
    """Return the end of a message on an unknown name: the most similar known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f": there are {', '.join(known) or 'none'}"


def _sampling(name: str, sampling: Sampling, settings: Mapping[str, str]) -> Sampling:
    values: dict[str, Any] = dict(settings)
    if "stop" in values:
        values["stop"] = _parse_stops(values["stop"])
    try:
        return Sampling.model_validate({**sampling.model_dump(), **values})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{name}: {first['loc'][0]}: {first['input']!r}: {first['msg']}") from None


def _parse_stops(text: str) -> Any:
    """Return the items of a JSON list, or a list of the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return value if isinstance(value, list) else [text]


def policy_text(name: str, value: Any) -> str:
    """Return the value of a policy's flag behind its name. Raises `ValueError` for a policy without a model."""
    if not isinstance(value, Mapping):
        return str(value)
    settings = dict(value)
    model = settings.pop("model", None)
    if model is None:
        raise ValueError(f"{name}: has no model")
    urls = settings.pop("base_url", [])
    options = [f"base_url={url}" for url in ([urls] if isinstance(urls, str) else urls)]
    options += [f"{key}={value if isinstance(value, str) else as_text(value)}" for key, value in settings.items()]
    return ",".join([str(model), *options])
