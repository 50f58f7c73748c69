"""Several rows in one: fewer, fuller rows of at most so many tokens, each cut nowhere."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack_rows(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which rows share a pack of at most `most` tokens: best fit, the longest first; each row once.

    Raises `ValueError` for a row that is longer than a pack.
    """
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []
    """(tokens left, pack), ascending."""
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        length = lengths[row]
        if length > most:
            raise ValueError(f"row {row} has {length} tokens, more than {most}")
        place = bisect_left(room, (length, -1))  # the fullest pack with so much room
        if place == len(room):
            packs.append([row])
            insort(room, (most - length, len(packs) - 1))
        else:
            left, pack = room.pop(place)
            packs[pack].append(row)
            insort(room, (left - length, pack))
    return packs
