"""The picture and the table of the rooms show the rooms that the contracts name, from the top down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def layers(name):
    """Return the layers of a contract from top to bottom, each a set of rooms."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers" and name in contract["layers"]]
    return [set(layer.split(" | ")) for layer in contract["layers"]]


def drawn_layers(rooms):
    """Return the rows of the picture from top to bottom, each the set of its `rooms`."""
    lines = {}
    for text in ElementTree.parse(ROOT / "docs/images/rooms.svg").iter("{http://www.w3.org/2000/svg}text"):
        name = (text.text or "").removesuffix("/")
        if text.get("font-weight") == "bold" and name in rooms and float(text.get("x")) < 650:
            lines.setdefault(float(text.get("y")) // 10, set()).add(name)
    return [lines[height] for height in sorted(lines)]


def test_the_picture_shows_the_rooms():
    contract = layers("jobs")
    assert drawn_layers(set.union(*contract)) == contract


def test_the_picture_shows_the_rooms_around_the_domain():
    contract = layers("flows")
    assert drawn_layers(set.union(*contract)) == contract


def test_the_table_names_every_room_of_the_domain():
    table = ARCHITECTURE.split("Inside `rollmill/`")[1].split("There are no upward")[0]
    named = [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines() if row.startswith("| `")]
    assert named == layers("jobs")
