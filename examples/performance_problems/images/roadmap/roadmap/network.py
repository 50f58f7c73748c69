"""Places, and roads between them."""

from __future__ import annotations

from collections.abc import Iterator


class Network:
    """Places are any values that can be hashed and sorted among each other."""

    def __init__(self) -> None:
        self._roads: dict = {}

    def add_place(self, place) -> None:
        """A place may have no road at all."""
        self._roads.setdefault(place, {})

    def add_road(self, start, end, length: int, *, one_way: bool = False) -> None:
        """Of several roads between the same places, the shortest counts."""
        if length <= 0:
            raise ValueError(f"the road from {start} to {end} has length {length}, which is not positive")
        self.add_place(start)
        self.add_place(end)
        known = self._roads[start].get(end)
        self._roads[start][end] = length if known is None else min(known, length)
        if not one_way:
            self.add_road(end, start, length, one_way=True)

    def places(self) -> list:
        """All places, sorted."""
        return sorted(self._roads)

    def roads_from(self, place) -> Iterator[tuple]:
        """Pairs of a neighbour and the length of the road to it. Raises `KeyError` for an unknown place."""
        yield from self._roads[place].items()
