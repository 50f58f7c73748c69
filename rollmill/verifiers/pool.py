"""Run a verifier: in this process if it is trusted, in worker processes otherwise."""

from __future__ import annotations

import asyncio
import inspect
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from rollmill.errors import InputError, describe
from rollmill.records import Problem, Verdict
from rollmill.verifiers import frames
from rollmill.verifiers.answer_tag import AnswerReading, encodable
from rollmill.verifiers.failure import CpuTimeExceededError, VerifierFailed, timeout_verdict
from rollmill.verifiers.fork import WALL_PER_CPU
from rollmill.verifiers.process_sandbox import sandbox_missing, warn_unsandboxed
from rollmill.verifiers.registry import (
    built_in_name,
    executes_answers,
    is_built_in,
    is_trusted,
    make_verifier,
    problem_fault,
)
from rollmill.verifiers.worker_process import WorkerProcess

if TYPE_CHECKING:  # it brings an HTTP client
    from rollmill.verifiers.judge import JudgeConfig

_GRACE_S = 5.0
"""Seconds beyond a fork's time limit before its worker is killed."""
_ATTEMPTS = 2
"""Attempts of a built-in verifier if its worker dies or gets no CPU time."""


class VerifierPool:
    """Verifies completions in one event loop; an asynchronous context manager.

    A trusted or an asynchronous verifier runs in this process. Any other runs in up to `workers` processes, which are
    started on demand and run one verification at a time. A verification that uses more than `time_limit_s` seconds of
    CPU time yields a verdict, `unparseable` with the reason `verifier_timeout`, because the answer is to blame. A
    verification that takes four times as long for lack of CPU time, or whose process dies, fails without affecting
    others, for a built-in verifier after a second attempt; its worker is replaced. A worker receives the problem as
    JSON, so tuples arrive as lists.

    Built-in verifiers run in a sandbox with an empty environment. If no sandbox is available, they run without one,
    after one warning, except that answers that run as programs are refused. A user's own verifier runs with the user's
    rights. Raises `InputError` as `make_verifier` does.

    Args:
        spec: The verifier, see `make_verifier`.
        accept_error: Largest distance of a success.
        answer: The pair of `<answer>` tags that is judged.
        strict_numbers: Whether only a bare number between tags is accepted.
        time_limit_s: CPU time limit of one verification in a worker, in seconds.
        workers: Maximum number of worker processes.
        judge: Configuration of the judge, for the verifier `judge`.
    """

    identity: dict[str, Any]
    """The parameters that determine the verdicts: `{"verifier": "numeric@1", "accept_error": 0.0}`."""

    def __init__(
        self,
        spec: str,
        *,
        accept_error: float,
        answer: AnswerReading = "last",
        strict_numbers: bool = False,
        time_limit_s: float = 30.0,
        workers: int = 2,
        judge: JudgeConfig | None = None,
    ) -> None:
        self._verifier = make_verifier(spec, accept_error=accept_error, answer=answer, strict_numbers=strict_numbers)
        if built_in_name(self._verifier) == "judge":
            self._verifier = type(self._verifier)(judge)  # type: ignore[call-arg]
        self._trusted = is_trusted(self._verifier)
        self._waits = inspect.iscoroutinefunction(self._verifier.verify)
        self._built_in = built_in_name(self._verifier)
        tolerance = getattr(self._verifier, "accept_error", 0.0) if self._built_in else accept_error
        self._arguments = {"accept_error": tolerance, "answer": answer, "strict_numbers": strict_numbers}
        self._spec = self._built_in or spec
        self._time_limit_s = time_limit_s
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[WorkerProcess] = []
        self._workers: set[WorkerProcess] = set()
        self._closed = False
        named = f"{self._verifier.name}@{self._verifier.version}"
        self.identity = {
            "verifier": named if is_built_in(spec) else f"{spec} ({named})",
            "accept_error": accept_error,
        }
        if self._built_in == "judge":
            self.identity |= self._verifier.identity  # type: ignore[attr-defined]
        self._takes_seed = self._waits and "seed" in inspect.signature(self._verifier.verify).parameters

    async def __aenter__(self) -> VerifierPool:
        if self._waits and hasattr(self._verifier, "__aenter__"):
            await self._verifier.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._waits and hasattr(self._verifier, "__aexit__"):
            await self._verifier.__aexit__(kind, error, trace)
        workers = list(self._workers)
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(self._end(worker) for worker in workers))

    async def verify(self, problem: Problem, completion: str, *, seed: int = 0) -> Verdict:
        """Return the verdict on one completion. Raises `VerifierFailed` if there is none.

        Raises `InputError` for a problem whose answers run as programs if there is no sandbox.

        Args:
            problem: The problem that the completion answers.
            completion: Text of the completion.
            seed: Seed of the rollout, for verifiers that sample.
        """
        if self._waits:
            return await self._verify_async(problem, completion, seed)
        if not self._trusted:
            return await self._verify_in_workers(problem, completion)
        try:
            return self._verifier.verify(problem, completion)
        except Exception as error:
            raise VerifierFailed("verifier_raised", describe(error)) from error

    async def _verify_async(self, problem: Problem, completion: str, seed: int) -> Verdict:
        options = {"seed": seed} if self._takes_seed else {}
        try:
            verdict: object = await self._verifier.verify(problem, completion, **options)  # type: ignore[misc]
        except (VerifierFailed, InputError):
            raise
        except Exception as error:
            raise VerifierFailed("verifier_raised", describe(error)) from error
        if not isinstance(verdict, Verdict):
            raise VerifierFailed("verifier_raised", f"verify returned {type(verdict).__name__}, not a Verdict")
        return verdict

    async def _verify_in_workers(self, problem: Problem, completion: str) -> Verdict:
        """Verify in a worker; try again in another one if it failed and the answer may not be the cause."""
        attempts = _ATTEMPTS if self._built_in else 1
        while True:
            attempts -= 1
            try:
                return await self._verify_in_worker(problem, completion)
            except CpuTimeExceededError:
                return timeout_verdict(f"{self._verifier.name}@{self._verifier.version}")
            except VerifierFailed as failure:
                if failure.type == "verifier_raised" or not attempts or self._closed:
                    raise

    async def _verify_in_worker(self, problem: Problem, completion: str) -> Verdict:
        frame = _request(problem, completion, self._time_limit_s)
        limit_s = WALL_PER_CPU * self._time_limit_s
        if executes_answers(self._verifier, problem):
            await asyncio.to_thread(sandbox_missing)  # fills the cache of the next line, which would block the loop
            problem_fault(self._verifier, problem)
            limit_s += _GRACE_S
        async with self._slots:
            if self._closed:
                raise VerifierFailed("verifier_died", "the verifier pool is closed")
            worker = await self._worker()
            try:
                reply = await worker.request(frame, limit_s, cpu_s=self._time_limit_s)
            finally:
                if worker.usable:
                    self._idle.append(worker)
                else:
                    await self._end(worker)
        return _read_reply(reply)

    async def _worker(self) -> WorkerProcess:
        """Return an idle worker, or a new one; workers that died while idle are skipped."""
        while self._idle:
            worker = self._idle.pop()
            if worker.usable:
                return worker
            await self._end(worker)
        if self._built_in:
            await asyncio.to_thread(warn_unsandboxed)
        worker = await WorkerProcess.spawn(built_in=self._built_in is not None)
        self._workers.add(worker)
        try:
            if self._closed:
                raise VerifierFailed("verifier_died", "the verifier pool is closed")
            await worker.prepare(self._spec, self._arguments)
        except BaseException:
            await self._end(worker)
            raise
        return worker

    async def _end(self, worker: WorkerProcess) -> None:
        try:
            await worker.end()
        finally:
            self._workers.discard(worker)


def _request(problem: Problem, completion: str, limit_s: float) -> bytes:
    try:
        fields = orjson.Fragment(problem.model_dump_json())
        return frames.pack({"problem": fields, "completion": encodable(completion), "limit_s": limit_s})
    except Exception as error:
        message = f"{problem.instance_id}: the problem cannot be sent to a worker as JSON: {describe(error)}"
        raise VerifierFailed("verifier_raised", message) from error


def _read_reply(reply: dict[str, Any]) -> Verdict:
    if "raised" in reply:
        raise VerifierFailed("verifier_raised", str(reply["raised"]))
    if "failed" in reply:
        raise VerifierFailed(reply["failed"]["type"], reply["failed"]["message"])
    try:
        return Verdict.model_validate(reply.get("verdict"))
    except ValidationError as error:
        raise VerifierFailed("verifier_raised", f"verify returned a broken Verdict: {describe(error)}") from error
