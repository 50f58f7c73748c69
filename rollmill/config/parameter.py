"""Declare parameters of flows, with what the command line, the form and the documentation show of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo


def _check_shell_line(line: str) -> str:
    shlex.split(line)
    return line


ShellLine = Annotated[str, AfterValidator(_check_shell_line)]
"""Arguments in one string, in shell syntax."""


def _read_json_object(value: Any) -> Any:
    """Parse a text as a JSON object; return other values unchanged. Raises `ValueError` for any other text."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value or "{}")
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError("""is not a JSON object: give one, as in '{"enable_thinking": false}'""")
    return parsed


def _check_json_object(value: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping that can be sent as JSON, which one from YAML may not be. Raises `ValueError`."""
    import orjson

    try:
        json.dumps(value, allow_nan=False)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be sent as JSON: {error}") from None
    return value


JsonObject = Annotated[dict[str, Any], BeforeValidator(_read_json_object), AfterValidator(_check_json_object)]
"""A JSON object: text on the command line, a mapping in files and in Python."""


class Parameters(BaseModel):
    """Parameters of a flow, or a part of them that several flows share.

    Validators are built at first use: `--help` needs none, and a program with several commands only one model's.
    """

    model_config = ConfigDict(defer_build=True)

    refused: ClassVar[dict[str, str]] = {}
    """Parameters of other flows that this one does not have, each with the reason."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_aliases(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name in cls.refused.keys() & values.keys():
            raise ValueError(f"--{name}: {cls.refused[name]}: leave it out")
        return canonical_names(cls, values)

    if not TYPE_CHECKING:  # mypy must report code of ours that uses an earlier name

        def __getattr__(self, name: str) -> Any:
            """Return a parameter by an earlier name, for users' code."""
            field = alias_names(type(self)).get(name)
            return super().__getattr__(name) if field is None else getattr(self, field)


def canonical_names(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with aliases replaced by the names of the model's fields.

    Prefect's form sends the defaults of all fields together with stored values: an alias overrides its field's default.
    Otherwise a parameter with two of its names raises `ValueError`.
    """
    names = alias_names(model)
    resolved = {name: value for name, value in values.items() if name not in names}
    spellings = {name: name for name in resolved}
    for alias, name in names.items():
        if alias not in values:
            continue
        if name in spellings and not _is_default(model.model_fields[name], resolved[name]):
            raise ValueError(f"{spellings[name]} and {alias} are the same parameter: give one of them")
        spellings[name] = alias
        resolved[name] = values[alias]
    return resolved


def _is_default(field: FieldInfo, value: Any) -> bool:
    return not field.is_required() and bool(field.get_default(call_default_factory=True) == value)


@cache
def alias_names(model: type[BaseModel]) -> dict[str, str]:
    """Return a mapping of aliases to the fields of a model."""
    return {alias: name for name, field in model.model_fields.items() for alias in field_aliases(field)}


def field_aliases(field: FieldInfo) -> tuple[str, ...]:
    """Return the aliases of a parameter."""
    extra = field.json_schema_extra
    aliases = extra.get("aliases") if isinstance(extra, dict) else None
    return tuple(map(str, aliases)) if isinstance(aliases, list) else ()


def environment_variables(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the environment variables that set a parameter."""
    extra = field.json_schema_extra
    env = extra.get("env") if isinstance(extra, dict) else None
    if env is True:
        return (name.upper(),)
    if isinstance(env, str):
        return (env,)
    return tuple(map(str, env)) if isinstance(env, list) else ()


def redefine(model: type[BaseModel], name: str, default: Any = ..., **changes: Any) -> Any:
    """Return a field like that of a shared model, with another default or other texts.

    Args:
        model: The shared model that declares the field.
        name: Name of the field.
        default: Default in this job; `...` where the field is required.
        **changes: `title`, `description`, `group`, `aliases`, `metavar` and `env` that replace those of the model.
    """
    field = model.model_fields[name]
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    bounds = {bound: value for piece in field.metadata for bound, value in _bounds(piece)}
    shared = {"title": field.title, "description": field.description, **extra, **bounds}
    return parameter(default, **(shared | changes))


def _bounds(piece: object) -> list[tuple[str, Any]]:
    """Return the bounds in one of pydantic's constraints, as arguments of `Field`."""
    names = ("ge", "gt", "le", "lt", "min_length", "max_length")
    bounds = [(name, getattr(piece, name)) for name in names if hasattr(piece, name)]
    is_repeated = isinstance(piece, AfterValidator | BeforeValidator | WithJsonSchema)  # the job's annotation has it
    assert bounds or is_repeated, f"redefine does not know the constraint {piece!r}"
    return bounds


def parameter(
    default: Any,
    group: str,
    title: str,
    description: str,
    *,
    metavar: str | None = None,
    env: bool | Sequence[str] = False,
    aliases: Sequence[str] = (),
    several: bool = False,
    **bounds: Any,
) -> Any:
    """Return a field of a parameter model.

    Args:
        default: Default value; `...` for a required parameter.
        group: Heading in `--help` and in the form.
        title: Label in the form.
        description: One sentence on the effect.
        metavar: Placeholder of the value in `--help`.
        env: Environment variables that set it, too; True for its name in capitals.
        aliases: Earlier names, and names in other tools, which flags, files of settings and stored parameters of
            deployments may use.
        several: Whether the flag of a text field accepts several values, which a validator of the field joins.
        **bounds: `ge`, `lt`, `min_length` and so on, as in pydantic's `Field`.
    """
    extra: dict[str, Any] = {"group": group, "env": env if isinstance(env, bool) else list(env)}
    if aliases:
        extra["aliases"] = list(aliases)
    if metavar:
        extra["metavar"] = metavar
    if several:
        extra["several"] = True
    return Field(default, title=title, description=description, json_schema_extra=extra, **bounds)
