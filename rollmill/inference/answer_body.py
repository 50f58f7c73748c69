"""The bounds that every client here puts on a server's answer: its length, packed and unpacked, and where it leads."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from rollmill.terminal.escapes import visible

LARGEST_ANSWER = 64 << 20
"""Bytes of one answer, as sent and unpacked: some hundred thousand tokens, their log-probabilities included."""

PLAIN = {"Accept-Encoding": "identity"}
"""Asks for an answer as it is. What a server packs all the same is unpacked up to the bound."""

_SHOWN = 300
_REDIRECTS = range(300, 400)
_KEEPING = (307, 308)
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_HEAD = b"\x1f\x8b"
_MOST_MEMBERS = 4096  # of a gzip body, which has one as a rule, and each of which takes time however small it is
_PADDING = re.compile(rb"\0*")
_PIECE = 1 << 16
_MOST_WORDS = 4000
"""Characters of what a server said of an error: messages show fewer, and each is looked at on the way there."""


class AnswerError(Exception):
    """An answer that is not read to its end, or not followed. `type` is a word to count by.

    The same request would be answered in the same way: none of these is worth sending again.
    """

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(message)
        self.type = type_


class AnswerBody:
    """Takes the pieces of an answer's body as they come, and refuses what is beyond the bound."""

    def __init__(self, url: str, headers: Mapping[str, str], *, limit: int = LARGEST_ANSWER) -> None:
        """`headers` finds names whatever their case is. Raises `AnswerError` for what can be told from them."""
        self._url = url
        self._limit = limit
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._encoding = (headers.get("Content-Encoding") or "identity").strip().lower() or "identity"
        if self._encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            shown = visible(self._encoding)[:_SHOWN]
            raise AnswerError("content_encoding", f"{url} packs its answer as {shown!r}, which is not read here")
        announced = headers.get("Content-Length") or ""
        if announced.isdecimal() and (len(announced) > 20 or int(announced) > limit):
            raise self._too_large()

    def add(self, piece: bytes) -> None:
        """Take one piece. Raises `AnswerError` where the answer is too large with it."""
        self._bytes += len(piece)
        if self._bytes > self._limit:
            raise self._too_large()
        self._pieces.append(piece)

    def content(self) -> bytes:
        """Return the whole body, unpacked. Raises `AnswerError` where it is larger so, or not packed as it says."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return body if self._encoding == "identity" or not body else self._unpacked(body)

    def _unpacked(self, body: bytes) -> bytes:
        gzip = body.startswith(_GZIP_HEAD)
        raw = self._encoding == "deflate" and not gzip and not _is_zlib(body)
        form = _GZIP if gzip else -zlib.MAX_WBITS if raw else _GZIP_OR_ZLIB
        content = bytearray()
        at = 0
        for _ in range(_MOST_MEMBERS if gzip else 1):
            at = self._unpack(form, body, at, content)
            if gzip and (padding := _PADDING.match(body, at)):
                at = padding.end()
            if at == len(body):
                return bytes(content)
        raise self._torn_error()

    def _unpack(self, form: int, body: bytes, at: int, content: bytearray) -> int:
        """Add to `content` what begins at a place of the body; return where it ends."""
        unpacking = zlib.decompressobj(form)
        while not unpacking.eof:
            piece = memoryview(body)[at : at + _PIECE]  # what is left of it is copied at each end
            if not piece:
                raise self._torn_error()
            try:
                content += unpacking.decompress(piece, self._limit + 1 - len(content))
            except zlib.error as error:
                raise AnswerError("content_encoding", f"{self._url} sends no {self._encoding}: {error}") from None
            if len(content) > self._limit:
                raise self._too_large()
            at += len(piece)
        return at - len(unpacking.unused_data)

    def _torn_error(self) -> AnswerError:
        return AnswerError("content_encoding", f"{self._url} sends a torn {self._encoding} body")

    def _too_large(self) -> AnswerError:
        return AnswerError("answer_too_large", f"{self._url} answers with more than {self._limit:,} bytes")


def check_redirect(url: str, status: int, location: str | None, *, suffix: str = "") -> None:
    """Raise `AnswerError` for a redirect: what is sent here, a key among it, goes nowhere else.

    Args:
        url: What was asked for.
        status: The answer's.
        location: Where it leads.
        suffix: What the client itself put behind the address that the user gave.
    """
    if status in _REDIRECTS and location:
        try:
            target = urljoin(url, location)
        except ValueError:  # no address at all
            target = location
        path, question, query = target.partition("?")
        address = path.rstrip("/").removesuffix(suffix) + question + query
        shown, right = visible(location)[:_SHOWN], visible(address)[:_SHOWN]
        raise AnswerError(
            "redirect",
            f"{url} answers {status}, a redirect to {shown}, which is not followed: give the right address: {right}",
        )


def same_host_redirect(url: str, status: int, location: str | None) -> str | None:
    """Return where a redirect leads that keeps the request as it is, and stays on the host; None for any other."""
    if status not in _KEEPING or not location:
        return None
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url, location))
        same = here.hostname == there.hostname and there.username is None
        stays = here.scheme == there.scheme and _port(here) == _port(there)
        upgraded = (here.scheme, _port(here)) == ("http", 80) and (there.scheme, _port(there)) == ("https", 443)
    except ValueError:
        return None
    return there.geturl() if same and (stays or upgraded) else None


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def words_of(message: Any, body: bytes) -> str:
    """Return what a server said, or `body`, its beginning, where that is nothing or nested too deep to be shown."""
    with suppress(RecursionError):
        if words := str(message or ""):
            return words[:_MOST_WORDS]
    return body.decode("utf-8", "replace") or "(empty)"


def _is_zlib(body: bytes) -> bool:
    """Return whether a `deflate` body has zlib's head, which some servers leave out (RFC 9110, 8.4.1.2)."""
    return len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
