"""Worker process of one untrusted verifier: `python -m rollmill.verifiers.worker PARENT_PID`.

It reads `{"spec", "arguments", "limits", "path", "environment"}` once and replies `{"ready": true}`; then it replies to
each `{"problem", "completion", "limit_s"}` with `{"verdict"}`, `{"raised"}` or `{"failed"}`. It exits at the end of its
input, and with its parent. `limits` is set for a built-in verifier, `path` and `environment` for a user's own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from rollmill.errors import describe
from rollmill.records import Problem, Verdict
from rollmill.sandboxes.sandbox import Limits
from rollmill.verifiers import frames
from rollmill.verifiers.confinement import bind, close_scratch, compute_only, cpu_limit, memory_peak
from rollmill.verifiers.fork import failure_reply, judge_in_fork
from rollmill.verifiers.protocol import Verifier
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier
from rollmill.verifiers.registry import executes_answers, make_verifier

PR_SET_PDEATHSIG = 1
_FIRST = 1
"""Process id of the parent in a sandbox: the first process of its namespace."""
_BYTES_PER_CHARACTER = 12
"""Most bytes of one character of an answer in JSON: a pair of escaped surrogates."""


def main(parent: int) -> None:
    """Serve requests until the input ends."""
    die_with(parent)
    be_first_out_of_memory()
    requests, replies = take_pipes()
    start = frames.read(requests)
    if start is None:
        return
    limits = None if start["limits"] is None else Limits.model_validate(start["limits"])
    if limits:
        bind(limits)
    else:
        sys.path[:] = start["path"]
        restore_environment(start["environment"])
    # Prepared before it is confined: imports need files, and some start processes.
    verifier = prepare_verifier(start["spec"], start["arguments"])
    if limits:
        confine(verifier, sandboxed=parent == _FIRST)
    message: dict[str, Any] = {"ready": True}
    me = os.getpid()
    while True:
        replies.write(frames.pack(message))
        replies.flush()
        request = frames.read(requests)
        if request is None:
            return
        message = reply_to(verifier, request, limits)
        if os.getpid() != me:
            os._exit(1)  # a child that the verifier forked and that returned: its reply would go to the next request


def die_with(parent: int) -> None:
    """Make the kernel kill this process when the thread that started it ends."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(1)


def be_first_out_of_memory() -> None:
    """Make the kernel's out-of-memory killer prefer this process to the run."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Reserve the pipes of file descriptors 0 and 1 for messages, away from the verifier's own code.

    What that code prints goes to stderr; what it reads is empty.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    return requests, replies


def restore_environment(original: dict[str, str | None]) -> None:
    """Restore, for the verifier's own child processes, the variables that were set for this process alone."""
    for name, value in original.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def prepare_verifier(spec: str, arguments: dict[str, Any]) -> Verifier | str:
    """Make and prepare the verifier; return the error message where that fails."""
    try:
        verifier = make_verifier(spec, **arguments)
        prepare = getattr(verifier, "prepare", None)
        if prepare:
            prepare()
    except BaseException as error:
        return f"cannot start: {describe(error)}"
    return verifier


def confine(verifier: Verifier | str, *, sandboxed: bool) -> None:
    """Drop rights that judging does not need, after the verifier is prepared."""
    if not sandboxed:
        with suppress(OSError):  # without seccomp in the kernel, there is no further restriction
            compute_only()
        return
    close_scratch()
    if not hasattr(verifier, "executes_answers"):  # a verifier that executes answers must still be able to fork
        compute_only()


def reply_to(verifier: Verifier | str, request: dict[str, Any], limits: Limits | None) -> dict[str, Any]:
    """Return the reply to one request; `limits` are those of a built-in verifier, else None."""
    if isinstance(verifier, str):
        return {"raised": verifier}
    try:
        problem = Problem.model_validate(request["problem"])
        forked = limits is not None and executes_answers(verifier, problem)
        if forked:
            cast(ReasoningGymVerifier, verifier).prepare_problem(problem)
    except BaseException as error:
        return {"raised": describe(error)}
    judge = partial(answer, verifier, problem, request["completion"])
    if limits is None:
        with cpu_limit(request["limit_s"]):
            return judge()
    if forked:
        return judge_in_fork(
            judge,
            verifier=f"{verifier.name}@{verifier.version}",
            limits=limits,
            limit_s=request["limit_s"],
            most_bytes=limits.output_bytes + _BYTES_PER_CHARACTER * len(request["completion"]),
        )
    with cpu_limit(request["limit_s"]):
        message = judge()
    if memory_peak() > limits.memory_mb << 20:
        # The verifier may have mistaken a `MemoryError` for a wrong answer. `last` ends the process, which stays large.
        return {
            **failure_reply("verifier_died", f"the verification took more than {limits.memory_mb} MiB"),
            "last": True,
        }
    return message


def answer(verifier: Verifier, problem: Problem, completion: str) -> dict[str, Any]:
    """Judge one completion and return the reply; every exception of the verifier, even `SystemExit`, becomes one."""
    try:
        verdict: object = verifier.verify(problem, completion)
        if not isinstance(verdict, Verdict):
            return {"raised": f"verify returned {type(verdict).__name__}, not a Verdict"}
        return {"verdict": orjson.loads(verdict.model_dump_json())}
    except BaseException as error:
        return {"raised": describe(error)}


if __name__ == "__main__":
    main(int(sys.argv[1]))
