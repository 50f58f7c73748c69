"""Shortest routes over a road network."""

from roadmap.network import Network
from roadmap.routes import NoRouteError, Route, distances, route

__all__ = ["Network", "NoRouteError", "Route", "distances", "route"]
