"""Known words, and which of them are near."""

from collections.abc import Iterable

from fuzzyfind.distance import distance


class Vocabulary:
    """A set of words; letters' case counts."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words))

    def __contains__(self, word: object) -> bool:
        return word in self.words

    def __len__(self) -> int:
        return len(self.words)

    def suggest(self, typed: str, most: int = 2) -> list[tuple[str, int]]:
        """Words at a distance of at most `most`, with their distance: nearest first, then alphabetically."""
        if most < 0:
            raise ValueError(f"a distance is never negative, and {most} is")
        near = []
        for word in self.words:
            if distance(typed, word) <= most:
                near.append((word, distance(typed, word)))
        near.sort(key=lambda pair: (pair[1], pair[0]))
        return near
