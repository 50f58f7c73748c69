"""The list of places: one a line, `x y name`."""

from typing import NamedTuple


class Place(NamedTuple):
    """A point on the map, in metres."""

    x: int
    y: int
    name: str


def load(lines):
    """Places from lines of text; blank ones and those that begin with # are skipped."""
    places = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            x, y, name = line.split(maxsplit=2)
            places.append(Place(int(x), int(y), name.strip()))
    return places


def dump(places):
    """The lines that `load` reads as these places."""
    return [f"{place.x} {place.y} {place.name}\n" for place in places]
