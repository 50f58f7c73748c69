"""Run one judgement in a fork, so that an answer that runs as a program cannot affect later judgements.

The fork cannot start, signal or inspect processes, and its only file is a pipe, from which the parent reads a bounded
reply and validates it. One attack remains: an answer that gets to run as a program can forge its own score, which is
computed in the same process.
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
"""Wall-clock seconds allowed per second of the CPU time limit, since the machine may be busy."""
_PIECE = 1 << 16
"""Bytes of one read."""
_LONGEST_END_S = 1.0
"""Seconds that the fork may take to exit after its reply."""
_MESSAGE_CHARACTERS = 2000


def judge_in_fork(
    judge: Callable[[], dict[str, Any]], *, verifier: str, limits: Limits, limit_s: float, most_bytes: int
) -> dict[str, Any]:
    """Run `judge` in a fork and return its reply, or a reply with `failed` if none arrives within the limits.

    Args:
        judge: Called in the fork; returns the reply.
        verifier: `name@version` that the reply's verdict must have.
        limits: Limits of the fork; only `memory_mb` is used.
        limit_s: CPU time limit in seconds; if it is exceeded, the reply is a verdict.
        most_bytes: Size limit of the encoded reply.
    """
    wall_s = WALL_PER_CPU * limit_s
    deadline = time.monotonic() + wall_s
    mine, its = os.pipe()
    child = os.fork()
    if child == 0:
        _run_judge(judge, its, limits, limit_s)
    os.close(its)
    ended = os.pidfd_open(child)
    try:
        received = _read(mine, deadline, most_bytes)
        # Let it exit by itself, so that its status tells how it ended.
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
        return failure_reply("verifier_timeout", f"no verdict within {wall_s:g} s")
    return _validate_reply(received, verifier, most_bytes) or failure_reply("verifier_died", _exit_message(status))


def failure_reply(kind: FailureType, message: str) -> dict[str, Any]:
    """Return the reply for a judgement without a verdict."""
    return {"failed": {"type": kind, "message": message}}


def _run_judge(judge: Callable[[], dict[str, Any]], pipe: int, limits: Limits, limit_s: float) -> None:
    """Restrict the forked process, judge, write the reply to `pipe` and exit.

    Args:
        judge: Returns the reply.
        pipe: File descriptor to write to.
        limits: Limits, of which `memory_mb` is used.
        limit_s: CPU time limit in seconds.
    """
    code = 1
    try:
        if pipe != 3:
            os.dup2(pipe, 3)
        os.closerange(4, MOST_FILES)  # including the pipes to the pool, over which a fork could forge replies
        compute_only(limit_s, limits.memory_mb)
        memory = _MemoryWatch()
        sys.settrace(memory.watch)
        try:
            with cpu_limit(limit_s):
                reply = judge()
        finally:
            sys.settrace(None)
        if memory.was_out:
            reply = failure_reply("verifier_died", "the judgement ran out of memory")
        encoded = orjson.dumps(reply)
        while encoded:
            encoded = encoded[os.write(3, encoded) :]
        code = 0
    finally:
        os._exit(code)  # without cleanup: buffers and handlers are the parent's


class _MemoryWatch:
    """Records every `MemoryError`, since a scorer may catch it and report a wrong answer."""

    def __init__(self) -> None:
        self.was_out = False

    def watch(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        """Trace function of `sys.settrace`; line events are turned off for speed."""
        frame.f_trace_lines = False
        if event == "exception" and issubclass(argument[0], MemoryError):
            self.was_out = True
        return self.watch


def _read(pipe: int, deadline: float, most_bytes: int) -> bytes | None:
    """Read at most `most_bytes` + 1 bytes up to the pipe's end; None if the deadline comes first."""
    received = bytearray()
    while len(received) <= most_bytes:
        if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
            return None
        piece = os.read(pipe, min(_PIECE, most_bytes + 1 - len(received)))
        if not piece:
            break
        received += piece
    return bytes(received)


def _validate_reply(encoded: bytes, verifier: str, most_bytes: int) -> dict[str, Any] | None:
    """Validate and rebuild a reply that untrusted code may have written; None for an invalid one."""
    if len(encoded) > most_bytes:
        return failure_reply("verifier_died", f"the judgement gave more than {most_bytes} bytes")
    try:
        reply = orjson.loads(encoded)
        if "verdict" in reply:
            verdict = Verdict.model_validate(reply["verdict"])
            if verdict.verifier == verifier and 0 <= verdict.reward <= 1:
                return {"verdict": orjson.loads(verdict.model_dump_json())}
        elif "raised" in reply:
            return {"raised": str(reply["raised"])[:_MESSAGE_CHARACTERS]}
        elif reply["failed"]["type"] == "verifier_died":
            return failure_reply("verifier_died", str(reply["failed"]["message"])[:_MESSAGE_CHARACTERS])
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        return failure_reply("verifier_died", f"the judgement gave no reply: {describe(error)}") if encoded else None
    return failure_reply("verifier_died", "the judgement gave no reply of its verifier's")


def _exit_message(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the judgement left with exit code {os.waitstatus_to_exitcode(status)}"
    return f"the judgement was killed by {signal.Signals(os.WTERMSIG(status)).name}"
