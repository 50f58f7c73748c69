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

from rollmill.records import Verdict
from rollmill.sandboxes.sandbox import Limits
from rollmill.verifiers.confinement import MOST_FILES, compute_only
from rollmill.verifiers.failure import FailureType, describe

_PIECE = 1 << 16
_LONGEST_END_S = 1.0
_MESSAGE_CHARACTERS = 2000


def judge_in_fork(
    judge: Callable[[], dict[str, Any]], *, verifier: str, limits: Limits, limit_s: float, most_bytes: int
) -> dict[str, Any]:
    """The reply that `judge` returns, or `{"failed"}` where none comes within `limit_s` seconds or `most_bytes`.

    Only a verdict of `verifier` (`name@version`) counts; of `limits`, memory.
    """
    deadline = time.monotonic() + limit_s
    mine, its = os.pipe()
    child = os.fork()
    if child == 0:
        _judge(judge, its, limits, limit_s)
    os.close(its)
    ended = os.pidfd_open(child)
    try:
        said = _read(mine, deadline, most_bytes)
        if said is not None:
            select.select([ended], [], [], _LONGEST_END_S)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(mine)
        os.close(ended)
    if said is None:
        return failed("verifier_timeout", f"no verdict within {limit_s:g} s")
    return _checked(said, verifier, most_bytes) or failed("verifier_died", _how_it_ended(status))


def failed(kind: FailureType, message: str) -> dict[str, Any]:
    """The reply about a judgement that came to nothing."""
    return {"failed": {"type": kind, "message": message}}


def _judge(judge: Callable[[], dict[str, Any]], pipe: int, limits: Limits, limit_s: float) -> None:
    """All that the fork does."""
    code = 1
    try:
        if pipe != 3:
            os.dup2(pipe, 3)
        os.closerange(4, MOST_FILES)  # the pool's pipes among them
        compute_only(limit_s, limits.memory_mb)
        memory = _MemoryWatch()
        sys.settrace(memory.watch)
        try:
            reply = judge()
        finally:
            sys.settrace(None)
        if memory.was_out:
            reply = failed("verifier_died", "the judgement ran out of memory")
        said = orjson.dumps(reply)
        while said:
            said = said[os.write(3, said) :]
        code = 0
    finally:
        os._exit(code)


class _MemoryWatch:
    """Notes that memory was out, also where a scorer takes that for a wrong answer."""

    def __init__(self) -> None:
        self.was_out = False

    def watch(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        """A trace function; lines are of no interest."""
        frame.f_trace_lines = False
        if event == "exception" and issubclass(argument[0], MemoryError):
            self.was_out = True
        return self.watch


def _read(pipe: int, deadline: float, most_bytes: int) -> bytes | None:
    """What comes to the pipe's end, one byte over `most_bytes` at most; None where the end does not come in time."""
    said = bytearray()
    while len(said) <= most_bytes:
        if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
            return None
        piece = os.read(pipe, min(_PIECE, most_bytes + 1 - len(said)))
        if not piece:
            break
        said += piece
    return bytes(said)


def _checked(said: bytes, verifier: str, most_bytes: int) -> dict[str, Any] | None:
    """The reply, made anew of what it may hold; None for anything else."""
    if len(said) > most_bytes:
        return failed("verifier_died", f"the judgement gave more than {most_bytes} bytes")
    try:
        reply = orjson.loads(said)
        if "verdict" in reply:
            verdict = Verdict.model_validate(reply["verdict"])
            if verdict.verifier == verifier and 0 <= verdict.reward <= 1:
                return {"verdict": orjson.loads(verdict.model_dump_json())}
        elif "raised" in reply:
            return {"raised": str(reply["raised"])[:_MESSAGE_CHARACTERS]}
        elif reply["failed"]["type"] == "verifier_died":
            return failed("verifier_died", str(reply["failed"]["message"])[:_MESSAGE_CHARACTERS])
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        return failed("verifier_died", f"the judgement gave no reply: {describe(error)}") if said else None
    return failed("verifier_died", "the judgement gave no reply of its verifier's")


def _how_it_ended(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the judgement left with exit code {os.waitstatus_to_exitcode(status)}"
    return f"the judgement was killed by {signal.Signals(os.WTERMSIG(status)).name}"
