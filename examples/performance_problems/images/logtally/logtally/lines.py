"""One line of the log."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One request."""

    endpoint: str
    status: int
    size: int
    milliseconds: int


def read_line(line):
    """The request on a line, or None where the line is malformed."""
    fields = line.split()
    if len(fields) != 6:
        return None
    _, _, path, status, size, milliseconds = fields
    if not (status.isdecimal() and size.isdecimal() and milliseconds.isdecimal()):
        return None
    return Entry(path.split("?", 1)[0], int(status), int(size), int(milliseconds))
