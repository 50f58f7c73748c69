"""The output of a command, of unknown length, in bounded memory."""

from __future__ import annotations


class CappedOutput:
    """Keeps the beginning and the end of a stream of bytes, each half of `most`, and drops the middle."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, piece: bytes) -> None:
        """Append a piece; never stores more than 1.5 times `most` bytes."""
        room = self._half - len(self._head)
        self._head += piece[:room]
        rest = piece[max(room, 0) :] if room < len(piece) else b""
        if len(rest) > self._half:
            self._dropped += len(rest) - self._half
            rest = rest[-self._half :]
        self._tail += rest
        if len(self._tail) > 2 * self._half:
            self._trim()

    @property
    def full(self) -> bool:
        """Return whether bytes were dropped."""
        return self._dropped + max(len(self._tail) - self._half, 0) > 0

    def text(self) -> str:
        """Return the stored text with a line in the middle that counts dropped bytes; invalid UTF-8 becomes U+FFFD."""
        self._trim()
        head, tail = self._head.decode(errors="replace"), self._tail.decode(errors="replace")
        if self._dropped:
            return f"{head}\n[{self._dropped} bytes of output are left out here]\n{tail}"
        return (self._head + self._tail).decode(errors="replace")

    def _trim(self) -> None:
        over = len(self._tail) - self._half
        if over > 0:
            del self._tail[:over]
            self._dropped += over
