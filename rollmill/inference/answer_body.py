"""Limits that all HTTP clients here put on responses: size, compressed and decompressed, and redirects."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from rollmill.terminal.escapes import visible

LARGEST_ANSWER = 64 << 20
"""Bytes of one response, compressed and decompressed: some hundred thousand tokens with their logprobs."""

PLAIN = {"Accept-Encoding": "identity"}
"""Header that asks for an uncompressed response. Where a server compresses anyway, the limit applies to the content."""

_SHOWN = 300
_REDIRECTS = range(300, 400)
_KEEPS_METHOD = (307, 308)
"""Redirects that keep the method and the body of the request."""
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_HEAD = b"\x1f\x8b"
_MOST_MEMBERS = 4096  # of a gzip body: usually one; each costs time however small it is
_PADDING = re.compile(rb"\0*")
_PIECE = 1 << 16
_MOST_MESSAGE = 4000
"""Longest error message in characters: less is shown, but every character is processed."""


class AnswerError(Exception):
    """A response that is too large, wrongly encoded, or a redirect. `type` is a word to count by.

    The same request would get the same response: none of these is retried.
    """

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(message)
        self.type = type_


class AnswerBody:
    """Collects the pieces of a response body as they arrive, up to a limit."""

    def __init__(self, url: str, headers: Mapping[str, str], *, limit: int = LARGEST_ANSWER) -> None:
        """Check the headers, a case-insensitive mapping. Raises `AnswerError` for an unsupported encoding or length."""
        self._url = url
        self._limit = limit
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._encoding = (headers.get("Content-Encoding") or "identity").strip().lower() or "identity"
        if self._encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            shown = visible(self._encoding)[:_SHOWN]
            raise AnswerError("content_encoding", f"{url} encodes its answer as {shown!r}, which is not supported")
        announced = headers.get("Content-Length") or ""
        if announced.isdecimal() and (len(announced) > 20 or int(announced) > limit):
            raise self._too_large()

    def add(self, piece: bytes) -> None:
        """Append one piece. Raises `AnswerError` where the response becomes too large."""
        self._bytes += len(piece)
        if self._bytes > self._limit:
            raise self._too_large()
        self._pieces.append(piece)

    def content(self) -> bytes:
        """Return the decompressed body. Raises `AnswerError` where it is too large or wrongly encoded."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return body if self._encoding == "identity" or not body else self._decompress(body)

    def _decompress(self, body: bytes) -> bytes:
        is_gzip = body.startswith(_GZIP_HEAD)
        # Some servers send gzip as deflate, or deflate without zlib's header: look at the bytes.
        wbits = _GZIP if is_gzip else _GZIP_OR_ZLIB
        if self._encoding == "deflate" and not is_gzip and not _is_zlib(body):
            wbits = -zlib.MAX_WBITS
        content = bytearray()
        offset = 0
        for _ in range(_MOST_MEMBERS if is_gzip else 1):
            offset = self._decompress_member(wbits, body, offset, content)
            if is_gzip and (padding := _PADDING.match(body, offset)):
                offset = padding.end()
            if offset == len(body):
                return bytes(content)
        raise self._torn_error()

    def _decompress_member(self, wbits: int, body: bytes, offset: int, content: bytearray) -> int:
        """Decompress one compressed stream within the body; return the offset at which it ends.

        Args:
            wbits: zlib's window bits, which select the format.
            body: All compressed bytes.
            offset: Byte at which the stream begins.
            content: Decompressed bytes are appended to it.
        """
        decompressor = zlib.decompressobj(wbits)
        while not decompressor.eof:
            # In pieces: at the end of each stream zlib copies the unused rest of its input.
            piece = memoryview(body)[offset : offset + _PIECE]
            if not piece:
                raise self._torn_error()
            try:
                content += decompressor.decompress(piece, self._limit + 1 - len(content))
            except zlib.error as error:
                raise AnswerError("content_encoding", f"{self._url} sends no {self._encoding}: {error}") from None
            if len(content) > self._limit:
                raise self._too_large()
            offset += len(piece)
        return offset - len(decompressor.unused_data)

    def _torn_error(self) -> AnswerError:
        return AnswerError("content_encoding", f"{self._url} sends a torn {self._encoding} body")

    def _too_large(self) -> AnswerError:
        return AnswerError("answer_too_large", f"{self._url} answers with more than {self._limit:,} bytes")


def check_redirect(url: str, status: int, location: str | None, *, suffix: str = "") -> None:
    """Raise `AnswerError` for a redirect: requests, and the key in them, are sent to no other address.

    Args:
        url: The address of the request.
        status: HTTP status of the response.
        location: Its `Location` header.
        suffix: Path that the client appended to the user's address, removed from the address in the message.
    """
    if status in _REDIRECTS and location:
        try:
            target = urljoin(url, location)
        except ValueError:  # not an address
            target = location
        path, question, query = target.partition("?")
        address = path.rstrip("/").removesuffix(suffix) + question + query
        shown, right = visible(location)[:_SHOWN], visible(address)[:_SHOWN]
        raise AnswerError(
            "redirect",
            f"{url} answers {status}, a redirect to {shown}, which is not followed: give the right address: {right}",
        )


def same_host_redirect(url: str, status: int, location: str | None) -> str | None:
    """Return the target of a redirect that keeps method and body, and stays on the same host; None for any other."""
    if status not in _KEEPS_METHOD or not location:
        return None
    try:
        source, target = urlsplit(url), urlsplit(urljoin(url, location))
        is_same_host = source.hostname == target.hostname and target.username is None
        is_same_port = source.scheme == target.scheme and _port(source) == _port(target)
        is_upgrade = (source.scheme, _port(source)) == ("http", 80) and (target.scheme, _port(target)) == ("https", 443)
    except ValueError:
        return None
    return target.geturl() if is_same_host and (is_same_port or is_upgrade) else None


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def message_text(message: Any, body: bytes) -> str:
    """Return a server's message as text, or `body` where it is empty or nested too deeply to be converted."""
    with suppress(RecursionError):
        if text := str(message or ""):
            return text[:_MOST_MESSAGE]
    return body.decode("utf-8", "replace") or "(empty)"


def _is_zlib(body: bytes) -> bool:
    """Return whether a `deflate` body has zlib's header, which some servers leave out (RFC 9110, 8.4.1.2)."""
    return len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
