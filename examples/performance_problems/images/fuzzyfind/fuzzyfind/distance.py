"""Levenshtein's distance."""


def distance(one: str, other: str) -> int:
    """The least number of letters to insert, delete or substitute that makes `other` of `one`."""
    rows = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for row in range(len(one) + 1):
        for column in range(len(other) + 1):
            if row == 0:
                rows[row][column] = column
            elif column == 0:
                rows[row][column] = row
            else:
                rows[row][column] = min(
                    rows[row - 1][column] + 1,
                    rows[row][column - 1] + 1,
                    rows[row - 1][column - 1] + (one[row - 1] != other[column - 1]),
                )
    return rows[len(one)][len(other)]
