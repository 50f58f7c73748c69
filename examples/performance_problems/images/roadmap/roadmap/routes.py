"""Shortest routes, by Dijkstra's method (Numerische Mathematik 1, 1959)."""

from __future__ import annotations

from typing import NamedTuple

from roadmap.network import Network


class NoRouteError(LookupError):
    """There is no way from one place to the other."""


class Route(NamedTuple):
    """Stops include both ends."""

    length: int
    stops: tuple


def distances(network: Network, start) -> dict:
    """The length of the shortest route from `start` to every place that can be reached. Raises `KeyError`."""
    return {place: length for place, (length, _) in _explore(network, start).items()}


def route(network: Network, start, end) -> Route:
    """The shortest route. Raises `NoRouteError`, and `KeyError` for an unknown start."""
    explored = _explore(network, start)
    if end not in explored:
        raise NoRouteError(f"no route from {start} to {end}")
    stops = [end]
    while stops[-1] != start:
        stops.append(explored[stops[-1]][1])
    return Route(explored[end][0], tuple(reversed(stops)))


def _explore(network: Network, start) -> dict:
    """For every place that can be reached, its distance and the stop before it (None for the start)."""
    done = {}
    open_places = [(0, start, None)]
    while open_places:
        nearest = min(length for length, _, _ in open_places)
        place, before = min(
            ((place, before) for length, place, before in open_places if length == nearest), key=_by_place_and_before
        )
        done[place] = (nearest, before)
        open_places = [entry for entry in open_places if entry[1] != place]
        for neighbour, length in network.roads_from(place):
            if neighbour not in done:
                open_places.append((nearest + length, neighbour, place))
    return done


def _by_place_and_before(pair):
    place, before = pair
    return (place, before is not None, before)
