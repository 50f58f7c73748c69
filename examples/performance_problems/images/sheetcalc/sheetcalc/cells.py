"""Names of cells: letters for the column, a number from 1 for the row."""

import re

_NAME = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,5})")


def position(name):
    """Column and row of a name, both from 1. Raises `ValueError`."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no cell")
    column = 0
    for letter in match[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return column, int(match[2])


def name_of(column, row):
    """The name of a position."""
    letters = ""
    while column:
        column, letter = divmod(column - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{row}"


def rectangle(first, last):
    """Names of all cells between two corners, row by row."""
    (left, top), (right, bottom) = position(first), position(last)
    columns = range(min(left, right), max(left, right) + 1)
    rows = range(min(top, bottom), max(top, bottom) + 1)
    return [name_of(column, row) for row in rows for column in columns]
