"""The words of a vocabulary that are nearest to what was typed."""

from fuzzyfind.distance import distance
from fuzzyfind.vocabulary import Vocabulary

__all__ = ["Vocabulary", "distance"]
__version__ = "1.2.0"
