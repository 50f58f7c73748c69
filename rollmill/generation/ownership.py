"""The run that a journal's rows belong to: each carries the beginning of its run's identity.

A manifest can be lost, copied or edited, and a journal copied in. So it is the rows that say which run they are of.
"""

from __future__ import annotations

from pathlib import Path

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.identity import Identity

RUN_IDENTITY = "run_identity"
"""The key in a row."""


class Ownership:
    """Stamps the rows of one run, and tells them from those of another.

    Args:
        identity: the run's.
        has_manifest: whether the run directory says so too. Only then rows from before the limit of tokens was
            raised are taken.
        older_rows: whether an older version began the run: rows without an identity are taken.
        flags: flags of the command line that name another directory.
    """

    def __init__(
        self, identity: Identity, *, has_manifest: bool, older_rows: bool = False, flags: str = "--output_dir"
    ) -> None:
        self.key = identity.row_key
        self.flags = flags
        self._identity = identity
        self._has_manifest = has_manifest
        self._older_rows = older_rows
        self._end = b',"%s":"%s"}\n' % (RUN_IDENTITY.encode(), self.key.encode())
        self._before_raising: dict[int, str] = {}

    def stamp(self, line: bytes) -> bytes:
        """Return a row's line with the run's identity; at its end, where it counts whatever stands before."""
        return line[:-2] + self._end  # 2: the brace and the newline

    def check(self, row_identity: object, max_tokens: int, path: Path, number: int) -> None:
        """Raise `InputError` where a row is of another run or does not say of which.

        Args:
            row_identity: the row's `run_identity`; None where it has none.
            max_tokens: the limit under which it was made.
            path: the journal.
            number: the row's line.
        """
        if row_identity == self.key or (row_identity is None and self._older_rows):
            return
        if row_identity is not None and self._has_manifest and row_identity == self._key_before_raising(max_tokens):
            return
        directory = path.parent.parent
        whose = (
            "does not say of which run it is" if row_identity is None else f"is of the run {_shortened(row_identity)}"
        )
        if self._has_manifest:
            raise InputError(
                f"{path}: line {number} {whose}, and {directory} is the run {self.key}: a journal or a {MANIFEST} was "
                f"copied or edited: put back the one that belongs here, or give another {self.flags}"
            )
        raise InputError(
            f"{path}: line {number} {whose}, the run asked for is {self.key}, and {directory} has no {MANIFEST}: "
            f"put the {MANIFEST} back, or give another {self.flags}"
        )

    def _key_before_raising(self, max_tokens: int) -> str | None:
        """Return the key of rows from before the limit was raised (all the same but the limit); None if it was not."""
        if max_tokens >= self._identity.max_tokens:
            return None
        if max_tokens not in self._before_raising:
            self._before_raising[max_tokens] = self._identity.with_max_tokens(max_tokens).row_key
        return self._before_raising[max_tokens]


def _shortened(row_identity: object) -> str:
    text = str(row_identity)
    return text if len(text) <= 32 else f"{text[:32]}..."
