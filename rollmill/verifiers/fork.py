"""One judgement in a fork of this process: whatever it does, this process and the next judgement are as before.

The fork can start, signal and look into no process, and has no file but a pipe of its own, which is read here up to a
bound and thrown away where it is not a whole reply. What it cannot be kept from is to lie about itself: an answer that
gets to run as a program runs where its own score is made.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import orjson
from pydantic import ValidationError

from rollmill.errors import describe
from rollmill.records import Verdict
from rollmill.sandboxes.sandbox import Limits
from rollmill.verifiers.confinement import MOST_FILES, compute_only, cpu_limit
from rollmill.verifiers.failure import FailureType, timeout_verdict

WALL_PER_CPU = 4.0
"""Seconds that a verification waits for each second of CPU time that it may use: a machine may be busy."""
_PIECE = 1 << 16
_LONGEST_END_S = 1.0
_MESSAGE_CHARACTERS = 2000


def judge_in_fork(
    judge: Callable[[], dict[str, Any]], *, verifier: str, limits: Limits, limit_s: float, most_bytes: int
) -> dict[str, Any]:
    """Run `judge` in a fork and return its reply; a reply with `failed` where none arrives within the limits.

    Args:
        judge: Called in the fork; returns the reply.
        verifier: `name@version` that the reply's verdict must have.
        limits: Limits of the fork; only its memory counts.
        limit_s: Limit of its CPU time in seconds; where it is reached, the reply is a verdict.
        most_bytes: Size limit of the encoded reply.
    """
    wall_s = WALL_PER_CPU * limit_s
    deadline = time.monotonic() + wall_s
    mine, its = os.pipe()
    child = os.fork()
    if child == 0:
        _judge(judge, its, limits, limit_s)
    os.close(its)
    ended = os.pidfd_open(child)
    try:
        received = _read(mine, deadline, most_bytes)
        if received is not None:
            select.select([ended], [], [], _LONGEST_END_S)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        os.close(mine)
        os.close(ended)
    if not received and used.ru_utime + used.ru_stime >= limit_s:
        return {"verdict": orjson.loads(timeout_verdict(verifier).model_dump_json())}
    if received is None:
        return failed("verifier_timeout", f"no verdict within {wall_s:g} s")
    return _checked(received, verifier, most_bytes) or failed("verifier_died", _how_it_ended(status))


def failed(kind: FailureType, message: str) -> dict[str, Any]:
    """Return the reply of a judgement without a verdict."""
    return {"failed": {"type": kind, "message": message}}


def _judge(judge: Callable[[], dict[str, Any]], pipe: int, limits: Limits, limit_s: float) -> None:
    """Judge and write the reply to `pipe`: everything that the fork runs.

    Args:
        judge: Returns the reply.
        pipe: File descriptor to write to.
        limits: Memory limit.
        limit_s: CPU time limit in seconds.
    """
    code = 1
    try:
        if pipe != 3:
            os.dup2(pipe, 3)
        os.closerange(4, MOST_FILES)  # the pool's pipes among them
        compute_only(limit_s, limits.memory_mb)
        memory = _MemoryWatch()
        sys.settrace(memory.watch)
        try:
            with cpu_limit(limit_s):
                reply = judge()
        finally:
            sys.settrace(None)
        if memory.was_out:
            reply = failed("verifier_died", "the judgement ran out of memory")
        encoded = orjson.dumps(reply)
        while encoded:
            encoded = encoded[os.write(3, encoded) :]
        code = 0
    finally:
        os._exit(code)


class _MemoryWatch:
    """Records that memory ran out, also where a scorer mistakes that for a wrong answer."""

    def __init__(self) -> None:
        self.was_out = False

    def watch(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        """Trace calls and exceptions, not lines."""
        frame.f_trace_lines = False
        if event == "exception" and issubclass(argument[0], MemoryError):
            self.was_out = True
        return self.watch


def _read(pipe: int, deadline: float, most_bytes: int) -> bytes | None:
    """Read to the pipe's end, at most `most_bytes` + 1 bytes; None where the end does not come before the deadline."""
    received = bytearray()
    while len(received) <= most_bytes:
        if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
            return None
        piece = os.read(pipe, min(_PIECE, most_bytes + 1 - len(received)))
        if not piece:
            break
        received += piece
    return bytes(received)


def _checked(encoded: bytes, verifier: str, most_bytes: int) -> dict[str, Any] | None:
    """Validate and rebuild a reply that untrusted code may have written; None for an invalid one."""
    if len(encoded) > most_bytes:
        return failed("verifier_died", f"the judgement gave more than {most_bytes} bytes")
    try:
        reply = orjson.loads(encoded)
        if "verdict" in reply:
            verdict = Verdict.model_validate(reply["verdict"])
            if verdict.verifier == verifier and 0 <= verdict.reward <= 1:
                return {"verdict": orjson.loads(verdict.model_dump_json())}
        elif "raised" in reply:
            return {"raised": str(reply["raised"])[:_MESSAGE_CHARACTERS]}
        elif reply["failed"]["type"] == "verifier_died":
            return failed("verifier_died", str(reply["failed"]["message"])[:_MESSAGE_CHARACTERS])
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        return failed("verifier_died", f"the judgement gave no reply: {describe(error)}") if encoded else None
    return failed("verifier_died", "the judgement gave no reply of its verifier's")


def _how_it_ended(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the judgement left with exit code {os.waitstatus_to_exitcode(status)}"
    return f"the judgement was killed by {signal.Signals(os.WTERMSIG(status)).name}"
