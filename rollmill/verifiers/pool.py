"""Verification for a run: at hand for what is trusted, in worker processes for everything else."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import orjson
from pydantic import ValidationError

from rollmill.records import Problem, Verdict
from rollmill.verifiers import frames
from rollmill.verifiers.answer_tag import encodable
from rollmill.verifiers.failure import VerifierFailed, describe
from rollmill.verifiers.registry import BUILT_IN, built_in_name, evaluates, is_trusted, make_verifier, problem_fault
from rollmill.verifiers.surroundings import sandbox_missing, say_unsandboxed
from rollmill.verifiers.worker_process import WorkerProcess

_GRACE_S = 5.0
"""For what a worker does around a fork whose own time it keeps."""


class VerifierPool:
    """Verifies completions for one event loop; an asynchronous context manager.

    A trusted verifier is called in place. Any other runs in up to `workers` processes, started when they are first
    needed, one verification at a time in each; one that takes more than `time_limit_s` seconds, or kills its process,
    fails alone, and its worker is replaced. A worker's `problem` has been through JSON: tuples arrive as lists.

    Built-in verifiers work in a sandbox with an empty environment. Where none can be had, they go on without, which is
    said once; but an answer that is judged by running it as a program is then refused. A user's own verifier is the
    user's code. Raises `InputError` as `make_verifier` does.
    """

    identity: dict[str, Any]
    """What determines the verdicts: `{"verifier": "numeric@1", "accept_error": 0.0}`."""

    def __init__(self, spec: str, *, accept_error: float, time_limit_s: float = 30.0, workers: int = 2) -> None:
        self._verifier = make_verifier(spec, accept_error=accept_error)
        self._trusted = is_trusted(self._verifier)
        self._built_in = built_in_name(self._verifier)
        self._accept_error = getattr(self._verifier, "accept_error", 0.0) if self._built_in else accept_error
        self._spec = self._built_in or spec
        self._time_limit_s = time_limit_s
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[WorkerProcess] = []
        self._workers: set[WorkerProcess] = set()
        self._closed = False
        named = f"{self._verifier.name}@{self._verifier.version}"
        self.identity = {
            "verifier": named if spec in BUILT_IN else f"{spec} ({named})",
            "accept_error": accept_error,
        }

    async def __aenter__(self) -> VerifierPool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        workers = list(self._workers)
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(self._end(worker) for worker in workers))

    async def verify(self, problem: Problem, completion: str) -> Verdict:
        """The verdict on one completion; raises `VerifierFailed` where there is none.

        Raises `InputError` for a problem whose answers would be run as programs where there is no sandbox.
        """
        if not self._trusted:
            return await self._verify_in_worker(problem, completion)
        try:
            return self._verifier.verify(problem, completion)
        except Exception as error:
            raise VerifierFailed("verifier_raised", describe(error)) from error

    async def _verify_in_worker(self, problem: Problem, completion: str) -> Verdict:
        frame = _request(problem, completion, self._time_limit_s)
        limit_s = self._time_limit_s
        if evaluates(self._verifier, problem):
            await asyncio.to_thread(sandbox_missing)
            problem_fault(self._verifier, problem)
            limit_s += _GRACE_S
        async with self._slots:
            if self._closed:
                raise VerifierFailed("verifier_died", "the verifier pool is closed")
            worker = await self._worker()
            try:
                reply = await worker.ask(frame, limit_s)
            finally:
                if worker.usable:
                    self._idle.append(worker)
                else:
                    await self._end(worker)
        return _verdict(reply)

    async def _worker(self) -> WorkerProcess:
        """An idle worker, or a new one; those that died while idle cost nothing."""
        while self._idle:
            worker = self._idle.pop()
            if worker.usable:
                return worker
            await self._end(worker)
        if self._built_in:
            await asyncio.to_thread(say_unsandboxed)
        worker = await WorkerProcess.spawn(built_in=self._built_in is not None)
        self._workers.add(worker)
        try:
            if self._closed:
                raise VerifierFailed("verifier_died", "the verifier pool is closed")
            await worker.prepare(self._spec, self._accept_error)
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


def _verdict(reply: dict[str, Any]) -> Verdict:
    if "raised" in reply:
        raise VerifierFailed("verifier_raised", str(reply["raised"]))
    if "failed" in reply:
        raise VerifierFailed(reply["failed"]["type"], reply["failed"]["message"])
    try:
        return Verdict.model_validate(reply.get("verdict"))
    except ValidationError as error:
        raise VerifierFailed("verifier_raised", f"verify returned a broken Verdict: {describe(error)}") from error
