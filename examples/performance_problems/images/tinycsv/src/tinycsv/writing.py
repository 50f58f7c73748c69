"""From rows to text."""

from collections.abc import Iterable, Sequence


def format_rows(rows: Iterable[Sequence[str]], *, line_end: str = "\n") -> str:
    """A document that `parse` reads as these rows; quotes only where they are needed."""
    return "".join(",".join(map(_field, row)) + line_end for row in rows)


def _field(value: str) -> str:
    if any(character in value for character in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value
