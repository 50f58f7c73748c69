"""Registries: the verifiers, environments, sandbox kinds and data sources that one file each adds.

A module of a room adds something by a statement `ENTRY = SomeEntry("name", "Class", "what it is")` at its top level,
whose arguments are literals. The registry reads that statement from the source, so that `--help`, forms and
documentation list what there is without importing it: a verifier may import sympy. An installed package adds its own
by an entry point in the group that has the room's name, such as `rollmill.verifiers`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from rollmill.errors import InputError, describe

# On one line, or with each argument on a line of its own, as the formatter writes it: parsing the statement alone takes
# a twentieth of the time of parsing its module.
_DECLARATION = re.compile(rb"^ENTRY = (?:\w+\(\n(?: +.*\n)+\)|.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """What a module declares of the one thing that it adds."""

    name: str
    """What users call it by."""
    target: str
    """Its class or object: `Name` in the declaring module, or `module:Name` in the declaring package."""
    description: str
    """What it is, in a few words without a full stop: `--help`, forms and documentation show it."""
    path: str = field(default="", kw_only=True)
    """`package.module:Name`; the registry sets it."""
    built_in: bool = field(default=False, kw_only=True)
    """Whether rollmill itself declares it; the registry sets it."""


EntryT = TypeVar("EntryT", bound=Entry)


class Registry(Mapping[str, EntryT], Generic[EntryT]):
    """The entries of one room by name, sorted; read when they are first asked for.

    Where an installed package uses the name of an entry of rollmill's own, rollmill's stays.

    Args:
        noun: What an entry is called in messages: "verifier".
        package: The package whose modules declare entries, and the group of other packages' entry points.
        entry: The class of the declarations.
        own: What a user may give in place of a name: "a class"; empty where only names are taken.
        also: Modules of rollmill's other rooms that declare entries: those that stand on more than the package.

    Reading raises `ValueError` for a declaration that is not of literals, and for two of one name.
    """

    def __init__(
        self, noun: str, package: str, entry: type[EntryT], *, own: str = "", also: Sequence[str] = ()
    ) -> None:
        self._noun = noun
        self._package = package
        self._entry = entry
        self._own = own
        self._also = also

    def __getitem__(self, name: str) -> EntryT:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def described(self) -> str:
        """All names, each with what it is: a part of a parameter's description."""
        return ", ".join(f"{entry.name} ({entry.description})" for entry in self.values())

    def hint(self, spec: str) -> str:
        """Return what to give instead of `spec`, which names nothing: all names, and the one that is close to it."""
        close = difflib.get_close_matches(spec, self, n=1)
        own = f", or {self._own} of your own as package.module:Name" if self._own else ""
        return f"use {', '.join(self)}{own}" + (f"; did you mean {close[0]}?" if close else "")

    def check_name(self, spec: str) -> str:
        """Return `spec` if it is a name of an entry, or may be a path; import nothing.

        Raises `ValueError` with the hint, for the validator of a parameter.
        """
        module, attribute = split_path(spec)
        if spec not in self and not (self._own and module and attribute):
            raise ValueError(f"there is no such {self._noun}: {self.hint(spec)}")
        return spec

    def load(self, spec: str) -> Any:
        """Import what `spec` names: an entry, or an attribute as `package.module:Name` or `package.module.Name`.

        Raises `InputError`, with the error of its import, where it cannot be had.
        """
        module, attribute = split_path(self[spec].path if spec in self else spec)
        if spec not in self and not (self._own and module and attribute):
            raise InputError(f"there is no {self._noun} {spec!r}: {self.hint(spec)}")
        return import_path(f"{self._noun} {spec!r}", f"{module}:{attribute}", own=spec not in self)

    @functools.cached_property
    def _entries(self) -> dict[str, EntryT]:
        entries: dict[str, EntryT] = {}
        for entry in _declared(self._package, self._also, self._entry):
            if entry.name in entries:
                raise ValueError(f"{entry.path} and {entries[entry.name].path} both declare {entry.name!r}")
            entries[entry.name] = entry
        for point in _entry_points(self._package):
            if point.name not in entries:
                package = f"of the package {point.dist.name}" if point.dist else "of another package"
                path = f"{point.module}:{point.attr}"
                entries[point.name] = self._entry(point.name, point.attr, package, path=path)
        return dict(sorted(entries.items()))


def import_path(label: str, path: str, *, own: bool = True) -> Any:
    """Import what a path names: an attribute, as `package.module:Name` or `package.module.Name`.

    Raises `InputError`, which begins with `label`, with the error of its import; for the user's `own` module it says
    where that must be.
    """
    module, attribute = split_path(path)
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        if not own:
            raise InputError(f"{label}: cannot import {module!r} ({describe(error)})") from error
        raise InputError(
            f"{label}: cannot import {module!r} ({describe(error)}); a module of your own must be in the current "
            "directory or on PYTHONPATH"
        ) from error
    try:
        return getattr(imported, attribute)
    except AttributeError:
        raise InputError(f"{label}: the module {module!r} has no {attribute!r}") from None


def split_path(path: str) -> tuple[str, str]:
    """Split a path into module and attribute, either empty where it has none."""
    module, _, attribute = path.rpartition(":" if ":" in path else ".")
    return module, attribute


def _declared(package: str, also: Sequence[str], entry: type[EntryT]) -> Iterator[EntryT]:
    """Read the declarations in a package's modules, in the `__init__` of the packages in it, and in further modules."""
    paths: dict[str, Path] = {}
    for folder in map(Path, importlib.import_module(package).__path__):
        for path in (*folder.glob("*.py"), *folder.glob("*/__init__.py")):
            name = path.stem if path.parent == folder else path.parent.name
            paths.setdefault(f"{package}.{name}", path)  # of two folders, modules are imported from the first
    for module in also:
        paths[module] = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    for name, path in paths.items():
        if statement := _DECLARATION.search(path.read_bytes()):
            declared = _read_declaration(name, statement[0], entry)
            separator = "." if ":" in declared.target else ":"
            yield replace(declared, path=f"{name}{separator}{declared.target}", built_in=True)


def _read_declaration(module: str, statement: bytes, entry: type[EntryT]) -> EntryT:
    """Build the entry that a module's statement declares, without importing the module."""
    try:
        match ast.parse(statement).body:
            case [ast.Assign(value=ast.Call() as call)]:
                named = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
                return entry(*map(ast.literal_eval, call.args), **named)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"{module}: ENTRY is no {entry.__name__} of literals: {error}") from error
    raise ValueError(f"{module}: ENTRY is no call of {entry.__name__}")


def _entry_points(group: str) -> Iterable[Any]:
    """Read the entry points of a group. Where no package names it, none is parsed: that takes longest."""
    if f"[{group}]".encode() not in _entry_point_files():
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=group)


@functools.cache
def _entry_point_files() -> bytes:
    """Read what all installed packages say of their entry points."""
    texts = []
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - paths of all files would take longer than the rest
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    texts.append(Path(folder, name, "entry_points.txt").read_bytes())
                except OSError:
                    continue  # most have none
    return b"\n".join(texts)
