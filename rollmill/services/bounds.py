"""Limits on clients' requests to the services, and on their duration. In seconds, bytes and characters."""

from __future__ import annotations

HEAD_BYTES = 16 << 10
"""Request line and headers together."""
HEADERS = 100
TARGET_BYTES = 2048
"""Path and query."""
BODY_BYTES = 4 << 20
"""One body. The longest is a start with a full environment: 1 MiB, at most four times that as JSON without escapes.

A command is one argument of a process, 128 KiB; files go in and out in pieces of that size.
"""
CASES_BYTES = 64 << 20
"""Cases of one sandbox that wait for `/answer_cases`."""
ALL_CASES_BYTES = 512 << 20
"""Cases of all sandboxes together."""
OUTPUT_BYTES = 10 << 20
"""All outputs of one `/answer_cases`: at most six times that as JSON, below what clients accept."""
BODY_PIECES = 8192
"""Chunks, or reads, of one body: each takes time of the event loop."""
BODIES_BYTES = 512 << 20
"""All bodies of requests in progress together."""

HEAD_S = 10.0
"""From the first byte of a request, or from the connection's start, to the end of its headers."""
BODY_S = 30.0
"""From the end of the headers to the end of the body."""
REFUSED_BODY_S = 5.0
"""For the rest of a body whose request is answered already: a client that is cut off while sending sees no answer."""
ANSWER_S = 60.0
"""For a client that stops reading in the middle of an answer."""
CLOSE_S = 5.0
"""For the last bytes of a connection that is being closed."""
KEEP_ALIVE_S = 75
"""Between two requests."""

CONNECTIONS = 8192
"""Open connections, if the limit on open files allows; a new one replaces the one that has been idle longest."""
WAITING_STARTS = 1024
"""Starts that wait for a free slot."""

ID_LENGTH = 200
"""Of a sandbox, a client, a request. Paths, commands and variables: see `rollmill.sandboxes.shell`."""
INSTANCE_LENGTH = 512
IMAGE_LENGTH = 255
VARIABLE_NAME_LENGTH = 255
VARIABLES = 1000
ARGUMENTS = 100
ARGUMENT_LENGTH = 4096
TIMEOUT_S = 30 * 86400.0
SHOWN = 1000
"""Characters of one error message."""
