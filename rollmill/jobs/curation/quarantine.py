"""Quarantine: the rows that could not be used, in a file of their own, each with its place and reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from rollmill.corpus.inputs import Source
from rollmill.files.atomic import atomic_write
from rollmill.files.rows import BadRow, dump_line
from rollmill.reports.plots.labels import counted
from rollmill.terminal.escapes import visible_line

_SHOWN = 5


class Quarantine:
    """Takes bad rows. Made by `open_quarantine`."""

    def __init__(self, path: Path | None, stack: ExitStack) -> None:
        self.path = path
        self.count = 0
        self._first: list[str] = []
        self._notes: list[str] = []
        self._stack = stack
        self._file: BinaryIO | None = None

    def __call__(self, source: Source, row: BadRow) -> None:
        """Takes one row."""
        self.count += 1
        if len(self._first) < _SHOWN:
            field = f"{row.field}: " if row.field else ""
            self._first.append(visible_line(f"{source.path}: row {row.number}: {field}{row.reason}"))
        if self.path and not self._file:
            self._file = self._stack.enter_context(atomic_write(self.path))
        if self._file:
            self._file.write(dump_line({"source": source.path, **row.to_json()}))

    def note(self, line: str) -> None:
        """Adds something to say."""
        self._notes.append(line)

    def lines(self) -> list[str]:
        """What a user should read: nothing where nothing is in it."""
        if not self.count:
            return self._notes
        where = f"; they are in {self.path}" if self.path else ""
        more = [f"  ... and {self.count - len(self._first):,} more"] if self.count > len(self._first) else []
        said = [f"{counted(self.count, 'row')} could not be used{where}", *(f"  {line}" for line in self._first), *more]
        return [*said, *self._notes]


@contextmanager
def open_quarantine(path: Path | None = None) -> Iterator[Quarantine]:
    """A quarantine whose file appears whole at the end, where there is anything to put into it."""
    if path:
        path.unlink(missing_ok=True)  # an earlier call's
    with ExitStack() as stack:
        yield Quarantine(path, stack)
