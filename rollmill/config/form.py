"""JSON schemas of a job's parameters that make readable forms in Prefect's UI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rollmill.config.parameter import Parameters

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_LAST = "Results"
_SHOWN_ONLY = {"title", "description", "default", "position", "group", "env", "metavar"}
"""Keys of a field's schema that are for display only."""
_FLAG = re.compile(r"--(no_)?(\w+)")


class Form(Parameters):
    """Parameters whose JSON schema is arranged for Prefect's form.

    The form has no headings: fields are sorted by group, and labelled `Group: Title`. Descriptions include the bounds,
    and refer to other fields by their labels. An optional field is an empty input, not a choice of types.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        model = handler.resolve_ref_schema(schema)
        aliases = {name: field.pop("aliases", []) for name, field in model["properties"].items()}
        model["properties"] = _arrange(model["properties"])
        if any(aliases.values()):
            _accept_aliases(model, aliases)
        return schema


def _accept_aliases(model: dict[str, Any], aliases: dict[str, list[str]]) -> None:
    """Accept earlier names of parameters, which deployments may have stored.

    They become pattern properties: Prefect's form shows all properties, but its server accepts all that the schema
    allows.
    """
    patterns = {}
    for name, others in aliases.items():
        if others:
            value = {key: value for key, value in model["properties"][name].items() if key not in _SHOWN_ONLY}
            # Prefect's server accepts null for optional properties, but not for those that match a pattern.
            patterns[f"^({'|'.join(others)})$"] = {"anyOf": [value, {"type": "null"}]}
    model["patternProperties"] = patterns
    required = model.get("required", [])
    model["required"] = [name for name in required if not aliases[name]]
    renamed = [name for name in required if aliases[name]]
    assert len(renamed) <= 1, "a condition is for one parameter, and Prefect's form does not support several"
    # Nested conditions: the parameter is required unless one of its aliases is given.
    for name in renamed:
        missing: dict[str, Any] = {"required": [name]}
        for alias in aliases[name]:
            missing = {"if": {"not": {"required": [alias]}}, "then": missing}
        model |= missing


def _arrange(fields: dict[str, Any]) -> dict[str, Any]:
    groups = list(dict.fromkeys(field["group"] for field in fields.values()))
    titles = {name: field["title"] for name, field in fields.items()}
    ordered = sorted(fields, key=lambda name: (fields[name]["group"] == _LAST, groups.index(fields[name]["group"])))
    # A database may store the fields in another order: the form sorts by `position`.
    return {name: _for_display(fields[name], titles) | {"position": at} for at, name in enumerate(ordered)}


def _for_display(field: dict[str, Any], titles: dict[str, str]) -> dict[str, Any]:
    shown = _without_none(field)
    description = _FLAG.sub(lambda flag: _title_of(flag, titles), field["description"])
    shown["description"] = " ".join([description, *_bounds(shown)])
    group, title = field["group"], field["title"]
    shown["title"] = title if title.startswith(group) else f"{group}: {title}"
    return shown


def _without_none(field: dict[str, Any]) -> dict[str, Any]:
    """Replace the union of one type and null by the type.

    Prefect's server accepts null for an optional property without a default anyway, unless it is an enumeration.
    """
    members = [member for member in field.get("anyOf", []) if member != {"type": "null"}]
    if len(members) != 1:
        return dict(field)
    [member] = members
    shown: dict[str, Any] = member | {key: value for key, value in field.items() if key != "anyOf"}
    if shown.get("default") is None:
        shown.pop("default", None)
    return shown | {"enum": [shown.pop("const")]} if "const" in shown else shown


def _title_of(flag: re.Match[str], titles: dict[str, str]) -> str:
    negated, name = flag.groups()
    if name not in titles:
        return flag[0]
    return f"“{titles[name]}” off" if negated else f"“{titles[name]}”"


def _bounds(field: dict[str, Any]) -> list[str]:
    """Return the range of a number, as a sentence."""
    if "minimum" in field and "maximum" in field:
        return [f"From {field['minimum']:,.12g} to {field['maximum']:,.12g}."]
    words = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "below"}
    phrases = [f"{phrase} {field[key]:,.12g}" for key, phrase in words.items() if key in field]
    return [" and ".join(phrases).capitalize() + "."] if phrases else []
