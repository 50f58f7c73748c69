"""Registries of verifiers, environments, sandbox kinds and data sources, each defined in one file.

A module registers something by a top-level statement `ENTRY = SomeEntry("name", "Class", "description")`, whose
arguments are literals. The registry reads that statement from the source, so that `--help`, forms and documentation
list all entries without importing them: a verifier may import sympy. An installed package registers its own by an entry
point in the group with the package's name, such as `rollmill.verifiers`.
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

# The statement on one line, or with one argument per line, as the formatter writes it. Parsing only the statement takes
# a twentieth of the time of parsing the module.
_DECLARATION = re.compile(rb"^ENTRY = (?:\w+\(\n(?: +.*\n)+\)|.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """The declaration of one registered class or object."""

    name: str
    """Name by which users choose it."""
    target: str
    """Its class or object: `Name` in the declaring module, or `module:Name` in the declaring package."""
    description: str
    """A few words without a full stop, for `--help`, forms and documentation."""
    path: str = field(default="", kw_only=True)
    """`package.module:Name`; the registry sets it."""
    built_in: bool = field(default=False, kw_only=True)
    """Whether it is part of rollmill; the registry sets it."""


EntryT = TypeVar("EntryT", bound=Entry)


class Registry(Mapping[str, EntryT], Generic[EntryT]):
    """A sorted mapping of names to entries, read at first use.

    An installed package cannot replace one of rollmill's entries. Reading raises `ValueError` for a declaration whose
    arguments are not literals, and for two with the same name.

    Args:
        noun: Singular noun of an entry in messages, such as "verifier".
        package: The package whose modules declare entries, and the group of other packages' entry points.
        entry: The class of the declarations.
        custom: Noun phrase of what users may give as an import path in place of a name, such as "a class"; empty where
            only names are accepted.
        also: Modules of other packages of rollmill that declare entries, because they depend on more than `package`.
    """

    def __init__(
        self, noun: str, package: str, entry: type[EntryT], *, custom: str = "", also: Sequence[str] = ()
    ) -> None:
        self._noun = noun
        self._package = package
        self._entry = entry
        self._custom = custom
        self._also = also

    def __getitem__(self, name: str) -> EntryT:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def described(self) -> str:
        """Return all names with their descriptions, for a parameter's description."""
        return ", ".join(f"{entry.name} ({entry.description})" for entry in self.values())

    def hint(self, spec: str) -> str:
        """Return advice for an unknown name `spec`: all names, and one with a similar spelling."""
        close = difflib.get_close_matches(spec, self, n=1)
        custom = f", or {self._custom} of your own as package.module:Name" if self._custom else ""
        return f"use {', '.join(self)}{custom}" + (f"; did you mean {close[0]}?" if close else "")

    def check_name(self, spec: str) -> str:
        """Return `spec` if it is the name of an entry, or may be an import path, without importing anything.

        Raises `ValueError` with the hint, for validators of parameters.
        """
        module, attribute = split_path(spec)
        if spec not in self and not (self._custom and module and attribute):
            raise ValueError(f"there is no such {self._noun}: {self.hint(spec)}")
        return spec

    def load(self, spec: str) -> Any:
        """Import an entry by name, or an attribute by its path `package.module:Name` or `package.module.Name`.

        Raises `InputError`, with the error of the import, where that fails.
        """
        module, attribute = split_path(self[spec].path if spec in self else spec)
        if spec not in self and not (self._custom and module and attribute):
            raise InputError(f"there is no {self._noun} {spec!r}: {self.hint(spec)}")
        return import_path(f"{self._noun} {spec!r}", f"{module}:{attribute}", is_custom=spec not in self)

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


def import_path(label: str, path: str, *, is_custom: bool = True) -> Any:
    """Import an attribute by its path, `package.module:Name` or `package.module.Name`.

    Raises `InputError`, beginning with `label`, with the error of the import; for a user's module (`is_custom`) the
    message says where that must be.
    """
    module, attribute = split_path(path)
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        if not is_custom:
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
    """Split an import path into module and attribute; either may be empty."""
    module, _, attribute = path.rpartition(":" if ":" in path else ".")
    return module, attribute


def _declared(package: str, also: Sequence[str], entry: type[EntryT]) -> Iterator[EntryT]:
    """Yield the declarations in a package's modules, in its subpackages' `__init__.py`, and in further modules."""
    paths: dict[str, Path] = {}
    for folder in map(Path, importlib.import_module(package).__path__):
        for path in (*folder.glob("*.py"), *folder.glob("*/__init__.py")):
            name = path.stem if path.parent == folder else path.parent.name
            paths.setdefault(f"{package}.{name}", path)  # as in an import, the first folder of `__path__` counts
    for module in also:
        paths[module] = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    for name, path in paths.items():
        if statement := _DECLARATION.search(path.read_bytes()):
            declared = _read_declaration(name, statement[0], entry)
            separator = "." if ":" in declared.target else ":"
            yield replace(declared, path=f"{name}{separator}{declared.target}", built_in=True)


def _read_declaration(module: str, statement: bytes, entry: type[EntryT]) -> EntryT:
    """Return the entry that a module's statement declares, without importing the module."""
    try:
        match ast.parse(statement).body:
            case [ast.Assign(value=ast.Call() as call)]:
                named = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
                return entry(*map(ast.literal_eval, call.args), **named)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"{module}: ENTRY is not a {entry.__name__} of literals: {error}") from error
    raise ValueError(f"{module}: ENTRY is not a call of {entry.__name__}")


def _entry_points(group: str) -> Iterable[Any]:
    """Return the entry points of a group; if no installed package mentions it, without slowly parsing all of them."""
    if f"[{group}]".encode() not in _entry_point_files():
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=group)


@functools.cache
def _entry_point_files() -> bytes:
    """Return the concatenated entry_points.txt of all installed packages."""
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
