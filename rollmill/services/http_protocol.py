"""HTTP/1.1 protocol of uvicorn with deadlines and limits that uvicorn itself lacks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from rollmill.services import bounds

_RECEIVING = (h11.IDLE, h11.SEND_BODY)
_SHARE_AT_ONCE = 16
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 413: b"Content Too Large", 414: b"URI Too Long"}
_PHRASES[431] = b"Request Header Fields Too Large"


class _Connection(h11.Connection):
    """Adds limits that h11 lacks: on a head that arrives in one read, and on the number of chunks of a body."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, bounds.HEAD_BYTES)
        self._pieces = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = 0
            _check_head(event)
        elif isinstance(event, h11.Data):
            self._pieces += 1
            if self._pieces > bounds.BODY_PIECES:
                raise h11.RemoteProtocolError(f"a body in more than {bounds.BODY_PIECES} pieces", 413)
        return event


def _check_head(request: h11.Request) -> None:
    if len(request.target) > bounds.TARGET_BYTES:
        raise h11.RemoteProtocolError(f"a request target of more than {bounds.TARGET_BYTES} bytes", 414)
    headers = list(request.headers)
    if len(headers) > bounds.HEADERS:
        raise h11.RemoteProtocolError(f"more than {bounds.HEADERS} headers", 431)
    if sum(len(name) + len(value) + 4 for name, value in headers) > bounds.HEAD_BYTES:
        raise h11.RemoteProtocolError(f"headers of more than {bounds.HEAD_BYTES} bytes", 431)


class BoundedProtocol(H11Protocol):
    """Closes stalled connections, and closes those that have been idle longest to make room for new ones.

    The server calls `end_overdue` about once a second. The deadlines are in `bounds`.
    """

    most_connections = bounds.CONNECTIONS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _Connection()
        self._began = time.monotonic()
        """Start of the connection's current state, by `time.monotonic`."""
        self._state: Any = h11.IDLE
        self._head_begun = True  # a new connection has HEAD_S for its first request; between requests it may be idle
        self._closing_since: float | None = None
        self._stuck_since: float | None = None
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        """Accept a connection. Beyond the limit, those that have waited longest are closed."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            waiting = [
                connection
                for connection in self.connections
                if isinstance(connection, BoundedProtocol) and connection.waits
            ]
            waiting.sort(key=lambda connection: connection._began)
            # Several at once, so that a flood of connections does not sort all of them for each new one.
            for connection in waiting[: max(1, self.most_connections // _SHARE_AT_ONCE)]:
                if connection is not self:
                    connection.abort()

    @property
    def waits(self) -> bool:
        """Return whether no request is being answered on this connection."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered or self._refused or self.conn.their_state in _RECEIVING

    def data_received(self, data: bytes) -> None:
        """Receive bytes; the first byte of a request starts its deadline."""
        if self._refused or self.transport.is_closing():
            return
        if self._state is h11.IDLE and not self._head_begun:
            self._head_begun = True
            self._began = time.monotonic()
        super().data_received(data)
        self._note_state()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._note_state()

    def _note_state(self) -> None:
        if self.conn.their_state is not self._state:
            self._state = self.conn.their_state
            self._began = time.monotonic()
            self._head_begun = False

    def pause_writing(self) -> None:
        """Record that the client stopped reading."""
        super().pause_writing()
        self._stuck_since = time.monotonic()

    def resume_writing(self) -> None:
        """Record that the client reads again."""
        super().resume_writing()
        self._stuck_since = None

    def abort(self) -> None:
        """Close the connection at once, discarding unsent bytes."""
        self._unset_keepalive_if_required()
        self.transport.abort()

    def end_overdue(self, now: float) -> None:
        """Close the connection if a deadline has passed; an incomplete request is answered with 408."""
        if self._refused or self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now > self._closing_since + bounds.CLOSE_S:
                self.abort()
        elif self._stuck_since is not None and now > self._stuck_since + bounds.ANSWER_S:
            self.abort()
        elif now > self._began + self._allowed_s():
            self.answer_in_one_line(408, "the request did not come in time")

    def _allowed_s(self) -> float:
        if self._state is h11.IDLE:
            return bounds.HEAD_S if self._head_begun else float("inf")
        if self._state is h11.SEND_BODY:
            answered = self.cycle is not None and self.cycle.response_complete
            return bounds.REFUSED_BODY_S if answered else bounds.BODY_S
        return float("inf")

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request with h11's reason and status."""
        error = sys.exception()
        status = getattr(error, "error_status_hint", 400)
        # h11 suggests 501 for unknown transfer encodings: for clients that is a wrong request as well.
        self.answer_in_one_line(status if status < 500 else 400, str(error or msg)[: bounds.SHOWN])

    def answer_in_one_line(self, status: int, detail: str) -> None:
        """Answer instead of the application, unless it has begun to, and close the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or not self._has_received():
            self.abort()
            return
        body = orjson.dumps({"detail": detail})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers.append((b"connection", b"close"))
        response = h11.Response(status_code=status, headers=headers, reason=_PHRASES.get(status, b"Bad Request"))
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._unset_keepalive_if_required()
        if self.cycle is not None:  # the application must not answer, too
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        # Half-close: a full close would reset the connection of a client that is still sending, and lose the answer.
        self._refused = True
        self.transport.write_eof()

    def _has_received(self) -> bool:
        return self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])

    def shutdown(self) -> None:
        """Close the connection after its current response; at once if there is none."""
        if self.waits or self._stuck_since is not None:
            self.abort()
        else:
            super().shutdown()


def end_overdue(connections: Iterable[Any]) -> None:
    """Close all connections whose deadline has passed."""
    now = time.monotonic()
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol):
            connection.end_overdue(now)


def room_for_connections() -> int:
    """Raise the limit on open files; return the maximum of connections: half of it, the rest is for sandboxes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * bounds.CONNECTIONS
    # Not more, since sandboxes' processes inherit it: some programs close all possible descriptors one by one.
    raised = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft != resource.RLIM_INFINITY and soft < raised:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return bounds.CONNECTIONS if soft == resource.RLIM_INFINITY else max(8, min(bounds.CONNECTIONS, soft // 2))
