"""A cache that forgets what was used longest ago."""

from .lru import LRUCache
from .replay import Outcome, replay

__all__ = ["LRUCache", "Outcome", "replay"]
