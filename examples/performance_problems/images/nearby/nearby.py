"""Which places are near."""

from typing import NamedTuple

from places import Place


class Hit(NamedTuple):
    """A place, and the square of its distance."""

    squared: int
    place: Place


class Index:
    """Answers questions about a fixed list of places, any number of which may be at the same point."""

    def __init__(self, places):
        self._places = list(places)

    def __len__(self):
        return len(self._places)

    def nearest(self, x, y, count=1):
        """The `count` nearest places, fewer where there are fewer: nearest first, equally near ones by name."""
        hits = [Hit((place.x - x) ** 2 + (place.y - y) ** 2, place) for place in self._places]
        hits.sort(key=_order)
        return hits[:count]

    def within(self, x, y, radius):
        """All places at most `radius` away, in the same order."""
        return [hit for hit in self.nearest(x, y, len(self)) if hit.squared <= radius**2]


def _order(hit):
    return (hit.squared, hit.place.name)
