"""Registries read what modules and installed packages declare, without importing it."""

import sys
from dataclasses import dataclass

import pytest

from rollmill.errors import InputError
from rollmill.registry import Entry, Registry


@dataclass(frozen=True)
class Tool(Entry):
    """What the modules of this test declare."""

    weight: int = 0


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that writes modules into a package of their own, and gives its registry."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"tools_of_{tmp_path.name}"
    package.mkdir()

    def make(custom="", **sources):
        for name, source in {"__init__": "", **sources}.items():
            path = package.joinpath(*name.split("__in__")[::-1]).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        return Registry("tool", package.name, Tool, custom=custom)

    return make


def declaring(name, more=""):
    return f'raise ImportError("imported")\nENTRY = Tool("{name}", "Made", "what {name} is"{more})\n'


def test_modules_are_listed_by_name_without_importing_them(tools):
    registry = tools(a=declaring("saw"), b=declaring("hammer", ", weight=3"), other="ENTRIES = 1\n")
    assert list(registry) == ["hammer", "saw"]
    assert registry.described == "hammer (what hammer is), saw (what saw is)"
    assert (registry["hammer"].weight, registry["hammer"].built_in) == (3, True)
    assert registry["saw"].path.endswith(".a:Made")
    assert registry["saw"].path.partition(":")[0] not in sys.modules


def test_a_package_declares_what_is_in_a_module_of_it(tools):
    entry = 'from tests.test_registry import Tool\n\nENTRY = Tool("drill", "machine:Drill", "a drill")\n'
    registry = tools(__init____in__drilling=entry, machine__in__drilling="class Drill: pass\n")
    assert registry.load("drill").__name__ == "Drill"


def test_an_installed_package_adds_its_own_and_replaces_none(tools, tmp_path):
    registry = tools(a=declaring("saw"), shop="class Bought: pass\n")
    group = registry["saw"].path.partition(".")[0]
    (tmp_path / "shop-1.0.dist-info").mkdir()
    (tmp_path / "shop-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: tool-shop\nVersion: 1.0\n")
    points = f"[{group}]\nbought = {group}.shop:Bought\nsaw = {group}.shop:Bought\n"
    (tmp_path / "shop-1.0.dist-info/entry_points.txt").write_text(points)
    from rollmill import registry as module

    module._entry_point_files.cache_clear()
    fresh = tools()
    module._entry_point_files.cache_clear()
    assert (list(fresh), fresh["saw"].built_in) == (["bought", "saw"], True)
    assert fresh["bought"].description == "of the package tool-shop"
    assert fresh.load("bought").__name__ == "Bought"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"a": declaring("saw"), "b": declaring("saw")}, r"\.[ab]:Made and .*\.[ab]:Made both declare 'saw'"),
        ({"a": '\nNAME = "saw"\nENTRY = Tool(NAME, "Made", "a saw")\n'}, r"\.a: ENTRY is not a Tool of literals"),
        ({"a": '\nENTRY = Tool("saw", "Made")\n'}, r"\.a: ENTRY is not a Tool of literals: .*description"),
        ({"a": "\nENTRY = 3\n"}, r"\.a: ENTRY is not a call of Tool"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_named(tools, sources, message):
    with pytest.raises(ValueError, match=message):
        list(tools(**sources))


@pytest.mark.parametrize(
    ("custom", "spec", "message"),
    [
        ("", "plane", "there is no tool 'plane': use hammer, saw$"),
        ("", "hamer", r"there is no tool 'hamer': use hammer, saw; did you mean hammer\?$"),
        ("", "shop.own:Tool", "there is no tool 'shop.own:Tool': use hammer, saw$"),
        ("a class", "hamer", r"use hammer, saw, or a class of your own as package\.module:Name; did you mean hammer"),
        ("a class", "nowhere_at_all:Tool", r"tool 'nowhere_at_all:Tool': cannot import .*ModuleNotFoundError"),
        ("a class", "sys:nothing", "tool 'sys:nothing': the module 'sys' has no 'nothing'"),
        ("", "saw", r"tool 'saw': cannot import .*\(ImportError: imported\)"),
    ],
)
def test_load_errors_are_one_line(tools, custom, spec, message):
    registry = tools(custom, a=declaring("saw"), b=declaring("hammer"))
    with pytest.raises(InputError, match=message):
        registry.load(spec)


def test_a_name_is_checked_without_importing_anything(tools):
    registry = tools("a class", a=declaring("saw"))
    assert [registry.check_name(spec) for spec in ("saw", "shop:Tool", "shop.Tool")] == [
        "saw",
        "shop:Tool",
        "shop.Tool",
    ]
    with pytest.raises(ValueError, match=r"there is no such tool: use saw, .*did you mean saw\?"):
        registry.check_name("sow")
