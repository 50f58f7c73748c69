"""Reference: tables of parameters, records, blocks and registries, made from the code itself when the pages are built.

Marks in the pages are replaced: `<!-- parameters 2 package.module:Model -->` (all parameters of a model, their groups
under headings of that level), `<!-- record package.module:Model -->` (the fields of a record), `<!-- blocks -->`,
`<!-- deployments -->` (those of prefect.yaml), `<!-- entries package.module:REGISTRY HEAD -->` (the entries of a
registry, under a head for their names), and `<!-- source path/of/module.py -->` (a file of the repository, as code).
"""

from __future__ import annotations

import importlib
import re
import types
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import griffe
import yaml  # type: ignore[import-untyped]  # stubs are a package of their own
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from rollmill.config.parameter import environment_variables, field_aliases

DOCS = Path(__file__).parents[1]
_MARK = re.compile(r"^<!-- (parameters|record|blocks|deployments|entries|source) ?(.*?) ?-->$", re.MULTILINE)
_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "text", SecretStr: "secret"}
_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each mark by its table."""
    return _MARK.sub(lambda mark: "\n".join(_MAKERS[mark[1]](*mark[2].split())), markdown)


def parameters(level: str, path: str) -> Iterator[str]:
    """Yield a heading and a table for each group of a parameter model."""
    groups: dict[str, list[str]] = {}
    for name, field in _model(path).model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        groups.setdefault(str(extra.get("group") or "Others"), []).append(_parameter(field.alias or name, field))
    for group, rows in groups.items():
        yield from (f"{'#' * int(level)} {group}", "", "| flag | default | values | what it is |", "|---|---|---|---|")
        yield from (*rows, "")


def _parameter(name: str, field: FieldInfo) -> str:
    flag = f"`--{name}`"
    if field.annotation is bool and field.default is not False and not name.startswith("no_"):
        flag += f"<br>`--no_{name}`"
    sentences = [f"**{_cell(field.title)}.**"] if field.title else []
    sentences.append(_cell(field.description or ""))
    if aliases := field_aliases(field):
        sentences.append(f"Also: {', '.join(f'`--{alias}`' for alias in aliases)}.")
    if variables := environment_variables(name, field):
        sentences.append(f"Environment: {', '.join(f'`{variable}`' for variable in variables)}.")
    return f"| {flag} | {_default(field)} | {_values(field)} | {' '.join(sentences)} |"


def record(path: str) -> Iterator[str]:
    """Yield a table of a record's fields: its own, and those of what it derives from."""
    model = _model(path)
    yield from ("| field | type | what it is |", "|---|---|---|")
    for name, field in model.model_fields.items():
        key = field.serialization_alias or name
        yield f"| `{key}` | {_cell(_kind(field.annotation))} | {_cell(field.description or _attribute(model, name))} |"
    yield ""


def blocks() -> Iterator[str]:
    """Yield a section for each block: its description, its fields, what its check does."""
    for block in importlib.import_module("blocks.kinds").BLOCKS:
        slug = block.get_block_type_slug()
        yield from (f"## {block._block_type_name}", "", _paragraph(block.__doc__), "")
        yield from (f"Block type `{slug}`; class `{block.__module__}.{block.__name__}`.", "")
        yield from ("| field | default | values | what it is |", "|---|---|---|---|")
        fields = {name: field for name, field in block.model_fields.items() if not name.startswith("_")}
        for name, field in fields.items():
            yield f"| `{name}` | {_default(field)} | {_values(field)} | {_cell(field.description or '')} |"
        yield from ("", f"`check()`: {_paragraph(block.check.__doc__)}", "")
        if (DOCS / f"images/ui-block-{slug}.png").is_file():
            yield from (f"![The form of a {block._block_type_name} block](../images/ui-block-{slug}.png)", "")


def deployments() -> Iterator[str]:
    """Yield a table of the deployments: their names, queues, schedules."""
    yield from ("| deployment | queue | schedule (UTC) | what it does |", "|---|---|---|---|")
    for deployment in yaml.safe_load((DOCS.parent / "prefect.yaml").read_text())["deployments"]:
        times = ", ".join(_code(schedule["cron"]) for schedule in deployment.get("schedules", []))
        queue, description = deployment["work_pool"]["work_queue_name"], _cell(deployment["description"])
        yield f"| `{deployment['name']}` | {queue} | {times} | {description} |"
    yield ""


def entries(path: str, *head: str) -> Iterator[str]:
    """Yield a table of rollmill's own entries in a registry; of environments with their agents and success."""
    registry = _model(path)
    built_in = [entry for entry in registry.values() if entry.built_in]
    environments = hasattr(built_in[0], "success")
    more = ["agents", "success"] if environments else []
    columns = [_code(" ".join(head)), "what it is", *more]
    yield from (f"| {' | '.join(columns)} |", "|---" * len(columns) + "|")
    for entry in built_in:
        cells = [_code(_spelled(entry)), _cell(entry.description)]
        if environments:
            kind = registry.load(entry.name)
            cells += [", ".join(map(_code, kind.agent_names(kind.Settings()))), _cell(entry.success)]
        yield f"| {' | '.join(cells)} |"
    yield ""


def source(path: str) -> Iterator[str]:
    """Yield a Python file of the repository as a fenced block with the file's name."""
    code = DOCS.parent.joinpath(path).read_text().rstrip("\n")
    yield from (f'```python title="{Path(path).name}"', code, "```")


def _spelled(entry: Any) -> str:
    """Return an entry as it is written on the command line."""
    return f"{entry.name}={entry.value}" if hasattr(entry, "value") else str(entry.name)


def _model(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _attribute(model: type[BaseModel], name: str) -> str:
    """Return the docstring under a field in the source, of the class that defines it."""
    for base in model.__mro__:
        if base.__module__.split(".")[0] in ("rollmill", "blocks"):
            member = _source(base.__module__)[base.__name__].members.get(name)
            if member is not None:
                return member.docstring.value if member.docstring else ""
    return ""


@cache
def _source(module: str) -> griffe.Module:
    path = DOCS.parent.joinpath(*module.split(".")).with_suffix(".py")
    return griffe.visit(module, filepath=path, code=path.read_text())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", [], (), {}):
        return ""
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, Path) and value.is_relative_to(DOCS.parent):
        return _code(value.relative_to(DOCS.parent))
    if isinstance(value, list | tuple):
        return _code(" ".join(map(str, value)))
    return _code(value.value if isinstance(value, Enum) else value)


def _values(field: FieldInfo) -> str:
    """Return the choices of a field, or its type and bounds."""
    bounds = [
        f"{words} {getattr(constraint, name):g}"
        for constraint in field.metadata
        for name, words in _BOUNDS
        if isinstance(getattr(constraint, name, None), int | float)
    ]
    kind = _kind(field.annotation).removesuffix(" or null")
    kind = {"true or false": "switch"}.get(kind, kind)
    return _cell(", ".join([kind, *bounds]))


def _kind(annotation: Any) -> str:
    """Return a type in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inside[0])
    if origin in (Union, types.UnionType):
        words = [_kind(part) for part in inside if part is not type(None)]
        return " or ".join([*dict.fromkeys(words), *(["null"] if type(None) in inside else [])])
    if origin is Literal:
        return ", ".join(_code(choice) for choice in inside)
    if origin in (list, tuple, set, frozenset):
        return f"several: {_kind(inside[0])}" if inside and inside[0] is not Any else "several"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(_code(member.value) for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"object: {annotation.__name__}"
    return _KINDS.get(annotation, "object" if origin is dict or annotation is dict else "any")


def _code(value: object) -> str:
    return f"`{value}`".replace("|", "\\|")


def _cell(text: str) -> str:
    """Escape a text for a table's cell: Markdown and HTML outside of code are shown as text."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _paragraph(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


_MAKERS: dict[str, Callable[..., Iterator[str]]] = {
    "parameters": parameters,
    "record": record,
    "blocks": blocks,
    "deployments": deployments,
    "entries": entries,
    "source": source,
}
