"""Ownership of journal rows: every row carries the first digits of its run's identity hash.

A manifest can be lost, copied or edited, and a journal copied in. So each row itself records which run it belongs to.
"""

from __future__ import annotations

from pathlib import Path

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.identity import Identity

RUN_IDENTITY = "run_identity"
"""The key of the identity in a row."""


class Ownership:
    """Stamps the rows of one run, and refuses rows of other runs.

    Args:
        identity: Of the run.
        has_manifest: Whether the run directory has a manifest with this identity. Only then are rows accepted from
            before the token limit was raised.
        older_rows: Whether an older version began the run: then rows without an identity are accepted.
        flags: Command line flags that choose another directory, for messages.
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
        """Return a row's line with the run's identity appended: of duplicate JSON keys the last one counts."""
        return line[:-2] + self._end  # without the closing brace and the newline, which `_end` has

    def check(self, row_identity: object, max_tokens: int, path: Path, number: int) -> None:
        """Raise `InputError` where a row belongs to another run, or does not say to which.

        Args:
            row_identity: The row's `run_identity`; None where it has none.
            max_tokens: Token limit with which the row's completion was sampled.
            path: The journal, for the message.
            number: Line number of the row, for the message.
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
        """Return the key of this run with a lower token limit, as rows from before it was raised have it.

        None where `max_tokens` is not lower than the run's limit.
        """
        if max_tokens >= self._identity.max_tokens:
            return None
        if max_tokens not in self._before_raising:
            self._before_raising[max_tokens] = self._identity.with_max_tokens(max_tokens).row_key
        return self._before_raising[max_tokens]


def _shortened(row_identity: object) -> str:
    text = str(row_identity)
    return text if len(text) <= 32 else f"{text[:32]}..."
